"""The pictures of a training: learning curves of all learners together, and what each trainer draws of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from arena.curves import Curve, draw_curves, learning_curve, save_figure
from arena.errors import ArenaError
from arena.learning import TrainingError, read_rows
from arena.training import Training

__all__ = ["draw_training"]


def draw_training(training: Training, folder: Path) -> list[Path]:
    """Draw everything that a training's folder has numbers for, and return the pictures' paths.

    ``curves.png`` has a panel for each number that a trainer names, ``curves/<number>.png`` that one alone.

    Raises:
        PrerequisiteError: matplotlib is missing.
        TrainingError: A trainer's own pictures failed.
    """
    rows = {name: read_rows(folder / name, training.seeds) for name in training.learners}
    rows = {name: some for name, some in rows.items() if some}
    pictures = _draw_curves(training, folder, rows)
    for name, some in rows.items():
        trainer = training.make_trainer(name)
        try:
            pictures += trainer.report(folder / name, some)
        except (ArenaError, OSError):
            raise
        except Exception as error:  # a third party's code
            raise TrainingError(f"{name}: drawing its report failed: {type(error).__name__}: {error}") from error
        finally:
            trainer.close()
    return pictures


def _draw_curves(training: Training, folder: Path, rows: Mapping[str, list[dict[str, float]]]) -> list[Path]:
    labels: dict[str, str] = {}
    curves: dict[str, dict[str, Curve]] = {}
    for learner, some in rows.items():
        for name, label in training.make_trainer(learner).curves.items():
            curve = learning_curve(some, name)
            if curve is not None:
                labels.setdefault(name, label)
                curves.setdefault(name, {})[learner] = curve
    if not curves:
        return []
    title = f"{training.name} · {training.env.id}"
    pictures = {folder / "curves.png": curves} | {
        folder / "curves" / f"{name}.png": {name: each} for name, each in curves.items()
    }
    for path, shown in pictures.items():
        save_figure(draw_curves(title, shown, labels), path)
    return list(pictures)
