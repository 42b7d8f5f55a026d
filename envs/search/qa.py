"""Questions whose answers have to be found: search a corpus, read, search again, answer.

Questions and documents come from `questions` and `corpus`, which are names: ``facts`` is generated from packaged facts
(cities, countries, airports, elements ...: see docs/environments/search.md); any other name is a folder below the one
that the environment variable ``ARENA_SEARCH_DATA`` names, which holds rows of NQ, TriviaQA, PopQA, HotpotQA,
2WikiMultiHopQA, MuSiQue, Bamboogle or Search-R1, and a corpus or the address of a retrieval server.

Observation: text. At first the question; after a search ``<information>Doc 1(Title: "...") ...</information>``; else
    what was wrong with the action, or which budget is used up.
Actions: the tools `search` and `answer`, or text with the tags of Search-R1, ``<search>...</search>`` and
    ``<answer>...</answer>``. Text without either is answered with a reminder and costs a turn.
Budgets: `max_searches`, `max_turns`, `max_observation` characters of documents after a search. A search beyond its
    budget finds nothing; it is counted, and costs a turn.
Reward: 1 for an answer that equals an accepted one after the published normalisation (lower case, no punctuation, no
    articles), else 0. Only the `answer` action is ever compared: what documents contain has no part in it.
Endings: ``answered`` and ``out_of_turns``, both terminations.
Score: the reward; success is an exact match. F1, the share of the supporting documents that were found, and what
    became of each search are metrics.
Information: every search is in the step's info: ``query``, ``status`` (``ok``, ``empty``, ``failed``,
    ``over_budget``), and the ids and titles of its hits.
Experts: ``oracle`` searches for each link of the question's chain; ``one_shot`` searches once for the question
    itself. Both read perfectly: they know the answer if, and only if, all supporting documents were shown to them.
    ``closed_book`` does not search. Who does not know gives the commonest answer to the training questions of the same
    kind. None of them needs a search for a question of no hops.
Tasks: the questions of a split; `hops` keeps those of some numbers of hops.
Seed: has no effect.
Versions: v0, the first.
Source: Jin et al. 2025 (Search-R1), arXiv:2503.09516; normalisation: Rajpurkar et al. 2016 (SQuAD), arXiv:1606.05250.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import msgspec
from pydantic import Field

from arena import (
    Action,
    AgentID,
    ConfigError,
    EnvError,
    EnvSpec,
    FreeText,
    Hit,
    InvalidActionError,
    Options,
    Retriever,
    Score,
    SeatSpec,
    SeatStep,
    SingleAgentEnvironment,
    Task,
    Taskset,
    Tool,
    ToolCall,
    UnknownIdError,
    UnsupportedError,
    UsageError,
    make_retriever,
    register,
    restart,
    termination,
    transition,
)

from .._foreign import SpecOfInstance
from ._corpora import CORPUS_NAME, FACTS
from ._formats import Question
from ._questions import has_corpus, question_file
from ._rows import QuestionFile
from ._scoring import exact_match, f1, lenient_match
from ._tags import Answer, Malformed, Search, defused, instructions, parse_message, render_information, shown_whole

_LONGEST_QUERY, _LONGEST_ANSWER, _LONGEST_TEXT, _LONGEST_NAME = 1_000, 2_000, 100_000, 200

_QUERY = {
    "type": "object",
    "properties": {"query": {"type": "string", "maxLength": _LONGEST_QUERY, "description": "What to look for."}},
    "required": ["query"],
    "additionalProperties": False,
}
_ANSWER = {
    "type": "object",
    "properties": {"text": {"type": "string", "maxLength": _LONGEST_ANSWER, "description": "The answer, and no more."}},
    "required": ["text"],
    "additionalProperties": False,
}
_TOOLS = (
    Tool("search", "Find documents.", _QUERY),
    Tool("answer", "Give the final answer: a name, a number, a date. The episode ends.", _ANSWER),
)
_WITH_TOOLS = "Where you are given the tools search and answer, call them and write no tags. You have {turns} turns."

Status = Literal["ok", "empty", "failed", "over_budget"]


class QAOptions(Options):
    """Options of `search/qa-v0`."""

    questions: str = Field(FACTS, pattern=CORPUS_NAME, description="Name of the questions; see the page.")
    corpus: str | None = Field(
        None, pattern=CORPUS_NAME, description="Name of the corpus; that of the questions, or else `facts`, if absent."
    )
    retriever: str = Field("bm25", max_length=100, description="What searches the corpus: bm25, dense, remote.")
    hops: tuple[int, ...] = Field((), max_length=10, description="Keep the questions of so many hops; all if empty.")
    topk: int = Field(3, ge=1, le=20, description="Documents that a search returns.")
    max_searches: int = Field(4, ge=0, le=100, description="Searches that find anything.")
    max_turns: int = Field(8, ge=1, le=200, description="Actions of any kind.")
    max_observation: int = Field(
        4_000, ge=200, le=100_000, description="Characters of an observation; the rest is cut."
    )
    on_failure: Literal["error", "tell"] = Field(
        "error",
        description="A search that failed behind the environment ends the episode as an `error`, which is no score; or "
        "the player is told, and it counts as a search, as where a server refuses the query.",
    )


class QATasks(Taskset):
    """The questions of a split, in the order of their file."""

    def __init__(self, file: QuestionFile, split: str, hops: tuple[int, ...]) -> None:
        self.split, self._file = split, file
        self._rows: Sequence[int] = _rows_of(file, hops) if hops else range(len(file))
        if not self._rows:
            raise ConfigError(f"search/qa-v0: no question of split {split!r} has {' or '.join(map(str, hops))} hops")

    def __len__(self) -> int:
        return len(self._rows)

    def task(self, index: int) -> Task:
        """Return the split's question number `index`, without its answer."""
        row = self._rows[index]
        return _task_of(self._file[row], row, self.split)

    def get(self, task_id: str) -> Task:
        """Return the question with this id."""
        row = self._file.index(task_id)
        at = bisect_left(self._rows, row)
        if at == len(self._rows) or self._rows[at] != row:
            raise UnknownIdError(f"question {task_id[:80]!r} is none of those that `hops` keeps")
        return _task_of(self._file[row], row, self.split)


@lru_cache(maxsize=32)
def _rows_of(file: QuestionFile, hops: tuple[int, ...]) -> tuple[int, ...]:
    """Return the rows whose questions have one of these numbers of hops."""
    return tuple(row for row, question in enumerate(file) if question.hops in hops)


def _task_of(question: Question, row: int, split: str) -> Task:
    hops = "unknown" if question.hops is None else question.hops
    return Task(question.id, split, {"row": row, "source": question.source, "hops": hops})


@dataclass
class _Search:
    """A search that was asked for."""

    query: str
    status: Status
    hits: tuple[tuple[str, str], ...] = ()
    """Ids and titles."""
    shown: int = 0
    """How many of them, from the first on, the player could read to their end."""

    def plain(self) -> dict[str, Any]:
        """Return it as a step's info shows it."""
        hits = [{"id": id[:_LONGEST_NAME], "title": title[:_LONGEST_NAME]} for id, title in self.hits]
        return {"query": self.query, "status": self.status, "hits": hits}


@dataclass
class _Episode:
    """All that has happened."""

    question: Question
    searches: list[_Search] = field(default_factory=list)
    turns: int = 0
    malformed: int = 0
    forged: int = 0
    answer: str | None = None

    @property
    def spent(self) -> int:
        """Searches that count against the budget."""
        return sum(search.status != "over_budget" for search in self.searches)

    @property
    def found(self) -> set[str]:
        """Titles of the documents that were shown so far, without a cut."""
        return {title for search in self.searches for _, title in search.hits[: search.shown]}


@register(
    "search/qa-v0",
    summary="Questions whose answers have to be found in a corpus, in one or several searches.",
    endings={"answered": "termination", "out_of_turns": "termination"},
    reward_range=(0.0, 1.0),
    metrics={
        "f1": "Token F1 of the answer.",
        "lenient": "1 if the answer matches where accents and punctuation of any script do not count.",
        "support_recall": "Share of the supporting documents shown whole; 1 if none is needed, 0 if none is known.",
        "searches": "Searches that were made, also those that failed or found nothing.",
        "empty": "Searches that found nothing.",
        "failed": "Searches that failed.",
        "over_budget": "Searches beyond the budget.",
        "malformed": "Actions that were neither a search nor an answer.",
        "forged": "Blocks of information that the player wrote itself.",
        "turns": "Actions.",
    },
    groups={"hops": "Documents that have to be read.", "source": "Where the question comes from."},
    splits=("train", "dev", "test"),
    seeded=False,
    snapshots=True,
    expert=True,
    experts=("oracle", "one_shot", "closed_book"),
    extra="search",
)
class QA(SingleAgentEnvironment):
    """One question at a time."""

    Options = QAOptions

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._episode: _Episode | None = None
        self._retriever: Retriever | None = None
        told = f"{instructions(searches=self.options.max_searches, topk=self.options.topk)}\n"
        told += _WITH_TOOLS.format(turns=self.options.max_turns)
        self._seat = SeatSpec(FreeText(_LONGEST_TEXT), FreeText(_LONGEST_TEXT), _TOOLS, told)

    def seat(self, agent: AgentID) -> SeatSpec:
        """Return the player's tools and text."""
        return self._seat

    def taskset(self, split: str) -> Taskset:
        """Return the questions of a split."""
        return QATasks(question_file(self.options.questions, split), split, self.options.hops)

    def prepare(self, task: Task) -> None:
        """Build the index, if it was never built."""
        self._opened()

    def begin(self, task: Task, seed: int) -> SeatStep:
        """Ask the question."""
        file = question_file(self.options.questions, task.split)
        row = task.data.get("row")
        if not isinstance(row, int) or not 0 <= row < len(file) or file[row].id != task.id:
            raise UnknownIdError(f"task {task.id[:80]!r} is not one of search/qa-v0 with these questions")
        self._opened()
        self._episode = _Episode(file[row])
        return restart(f"Question: {defused(file[row].question)}")

    def act(self, action: Action) -> SeatStep:
        """Search, or take the answer."""
        episode = self._now()
        asked, forged = _read(action)
        search = None
        if isinstance(asked, Search):
            search = self._search(asked.query)  # may fail; nothing has changed then
        episode.turns += 1
        episode.forged += forged
        if isinstance(asked, Answer):
            return self._answered(asked.text)
        if search is not None:
            hits, made = search
            episode.searches.append(made)
            return self._went_on(self._told(made, hits), {"search": made.plain()})
        assert isinstance(asked, Malformed)
        episode.malformed += 1
        return self._went_on(asked.reason, {"malformed": asked.fault})

    def score(self) -> Score:
        """Return whether the answer is an exact match."""
        episode = self._now()
        question, searches = episode.question, episode.searches
        right = exact_match(episode.answer, question.answers)
        counts = Counter(search.status for search in searches)
        support, found = set(question.support), episode.found
        metrics = {
            "f1": f1(episode.answer, question.answers),
            "lenient": float(lenient_match(episode.answer, question.answers)),
            "support_recall": len(support & found) / len(support) if support else float(question.hops == 0),
            "searches": float(episode.spent),
            "empty": float(counts["empty"]),
            "failed": float(counts["failed"]),
            "over_budget": float(counts["over_budget"]),
            "malformed": float(episode.malformed),
            "forged": float(episode.forged),
            "turns": float(episode.turns),
        }
        return Score(float(right), right, metrics)

    def expert_action(self, agent: AgentID, kind: str | None = None) -> Action:
        """Return what the oracle, or another expert, would do."""
        episode = self._now()
        if kind == "closed_book":
            return _answer(self._commonest(episode.question))
        if kind == "one_shot":
            return self._one_shot(episode)
        return self._oracle(episode)

    def snapshot(self) -> object:
        """Return the episode so far."""
        return copy.deepcopy(self._episode)

    def restore(self, state: object) -> None:
        """Continue from a snapshot."""
        assert isinstance(state, _Episode)
        self._episode = copy.deepcopy(state)

    # -- actions ------------------------------------------------------------------------------------------------------

    def _now(self) -> _Episode:
        assert self._episode is not None
        return self._episode

    def _search(self, query: str) -> tuple[list[Hit], _Search]:
        """Return what a search finds, and its record.

        Raises:
            EnvError: The search failed, and `on_failure` is "error".
        """
        if self._now().spent >= self.options.max_searches:
            return [], _Search(query, "over_budget")
        try:
            (hits,) = (self._retriever or self._opened()).search([query], self.options.topk)
        except UsageError:  # the query is the player's: what it asks for must not void the episode
            return [], _Search(query, "failed")
        except EnvError:
            if self.options.on_failure == "error":
                raise
            return [], _Search(query, "failed")
        names = tuple((hit.document.id, hit.document.title) for hit in hits)
        return hits, _Search(query, "ok" if hits else "empty", names)

    def _told(self, search: _Search, hits: list[Hit]) -> str:
        """Return what the player reads after a search."""
        match search.status:
            case "ok":
                shown = render_information(hits, budget=self.options.max_observation)
                search.shown = shown_whole(shown, hits)
                return shown
            case "empty":
                return "Nothing was found."
            case "failed":
                return "The search failed."
        return f"There are no searches left; {self.options.max_searches} was the most. Answer now."

    def _went_on(self, told: str, info: dict[str, Any]) -> SeatStep:
        episode = self._now()
        if episode.turns >= self.options.max_turns:
            return termination(told, 0.0, ending="out_of_turns", **info)
        return transition(told, 0.0, **info)

    def _answered(self, text: str) -> SeatStep:
        episode = self._now()
        episode.answer = text
        right = exact_match(text, episode.question.answers)
        return termination("That is right." if right else "That is wrong.", float(right), ending="answered")

    def _opened(self) -> Retriever:
        """Return the retriever, ready to search the corpus as it is now; those of one corpus share its index."""
        options = self.options
        if self._retriever is None:
            corpus = options.corpus or (options.questions if has_corpus(options.questions) else FACTS)
            self._retriever = make_retriever(options.retriever, {"corpus": corpus})
        self._retriever.open()
        return self._retriever

    def close(self) -> None:
        """Let go of the index."""
        if self._retriever is not None:
            self._retriever.close()
            self._retriever = None

    # -- experts ------------------------------------------------------------------------------------------------------

    def _oracle(self, episode: _Episode) -> Action:
        question = episode.question
        if not question.support and question.hops != 0:
            raise UnsupportedError(f"the chain of question {question.id!r} is not known")
        queries = question.metadata.get("queries", question.support)
        asked = {search.query for search in episode.searches}
        room = self.options.max_searches - episode.spent
        if room > 0 and self.options.max_turns - episode.turns > 1:
            for query, title in zip(queries, question.support, strict=True):
                if title not in episode.found and query not in asked:
                    return ToolCall("search", {"query": query})
        return _answer(self._known(episode))

    def _one_shot(self, episode: _Episode) -> Action:
        question = episode.question
        if question.hops == 0:
            return _answer(question.answers[0])
        if not episode.searches and self.options.max_searches and self.options.max_turns > 1:
            return ToolCall("search", {"query": question.question[:_LONGEST_QUERY]})
        return _answer(self._known(episode))

    def _known(self, episode: _Episode) -> str:
        """Return the answer where all supporting documents were read, else a guess."""
        question = episode.question
        if question.support and episode.found.issuperset(question.support):
            return question.answers[0]
        return self._commonest(question)

    def _commonest(self, question: Question) -> str:
        if question.hops == 0:
            return question.answers[0]
        known = _priors(self.options.questions)
        return known.get(question.metadata.get("relation")) or known[None]


def _read(action: Action) -> tuple[Search | Answer | Malformed, int]:
    """Return what an action asks for, and how many blocks of information it holds that nobody gave the player."""
    if isinstance(action, ToolCall):
        argument = {"search": "query", "answer": "text"}.get(action.name)
        text = action.arguments.get(argument or "")
        if not isinstance(text, str):
            raise InvalidActionError(f"{action!r} is no action (allowed: the tools search and answer, or text)")
        if action.name == "answer":
            return Answer(text.strip()), 0
        return Search(text.strip()) if text.strip() else Malformed("The query is empty.", "empty_query"), 0
    if not isinstance(action, str):
        raise InvalidActionError(f"{action!r} is no action (allowed: the tools search and answer, or text)")
    message = parse_message(action)
    asked = message.action
    if isinstance(asked, Search):
        asked = Search(asked.query[:_LONGEST_QUERY])
    elif isinstance(asked, Answer):
        asked = Answer(asked.text[:_LONGEST_ANSWER])
    return asked, message.forged


def _answer(text: str) -> ToolCall:
    return ToolCall("answer", {"text": text[:_LONGEST_ANSWER]})


@lru_cache(maxsize=8)
def _priors(name: str) -> dict[Any, str]:
    """Return the commonest answer to the training questions of each relation, and, by None, to all."""
    counts: dict[Any, Counter[str]] = {None: Counter()}
    for question in question_file(name, "train"):
        if question.answers and question.hops != 0:
            for relation in {None, question.metadata.get("relation")}:
                counts.setdefault(relation, Counter())[question.answers[0]] += 1
    return {relation: found.most_common(1)[0][0] for relation, found in counts.items() if found} | {
        None: counts[None].most_common(1)[0][0] if counts[None] else "unknown"
    }


def _spec_of(declared: EnvSpec, env: QA) -> EnvSpec:
    spec = make_retriever(env.options.retriever, {"corpus": FACTS}).spec
    return msgspec.structs.replace(declared, deterministic=spec.deterministic, blocking=spec.blocking)


QA.spec = SpecOfInstance(QA.spec, _spec_of)  # type: ignore[assignment]
