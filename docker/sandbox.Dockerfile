# The image of sandboxes whose settings name none. From the repository's root:
#   docker build --tag arena-sandbox - < docker/sandbox.Dockerfile
# Any other image serves, too: it needs `sh`, `head` and `cat`, and is given `bash` commands where it has bash.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE}

# None where there is no network: --build-arg PACKAGES=
ARG PACKAGES="git patch procps"
RUN if [ -n "$PACKAGES" ]; then \
        apt-get update && apt-get install --yes --no-install-recommends $PACKAGES && rm -rf /var/lib/apt/lists/*; \
    fi

# The user of every command, whatever the image says.
RUN groupadd --gid 1000 agent && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /home/agent --shell /bin/bash agent
