"""What a criterion is: a function that scores structures, and what a caller has to know of it.

Convention: everything is stated in the record and nothing is read off the function's signature, so that a decorated or
partial function is as good as a plain one. An option is what a criterion's text may set (``"snip,rounds=5"``); what
`score` passes on by itself (density, seed, normalise, resume) is no option.

Not here: the criteria there are (`viscircuits.saliency.registry`), the formulas (one file each).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from viscircuits.bounds.ranges import RANGES, within
from viscircuits.card import Card, Shown, few
from viscircuits.errors import MaskError, closest
from viscircuits.saliency.engine.passes import Pass
from viscircuits.scores import Scores

Passed = Literal["density", "seed", "normalise", "resume"]
"""What `score` has a place for and hands to the criteria that take it."""


@dataclass(frozen=True, repr=False)
class Criterion(Shown):
    """A way to score structures; called like its function.

    Args:
        name: how it is asked for.
        function: ``(Pass, *, options) -> one Scores a target``.
        options: what its text may set; ``int`` is read as a whole number, ``float`` as a number, ``tuple`` as numbers
            between slashes, and ``str`` stands as it is.
        passed: what it takes of what `score` is given.
        needs_density: whether its scores hold for one density only, so that it has to be told which.
        ranks: whether its scores are places in an order of all structures, which serves every density, and belong to a
            set of pictures as a whole, so that scores of single pictures do not add up to them.
        learned: whether it trains gates for the response.
        settings: options that are set already, by name.
    """

    name: str
    function: Callable[..., list[Scores]]
    options: Mapping[str, type] = field(default_factory=dict)
    passed: tuple[Passed, ...] = ()
    needs_density: bool = False
    ranks: bool = False
    learned: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)

    def _card(self) -> Card:
        set_already = few([f"{name}={value}" for name, value in self.settings.items()], 8)
        needs = "the density that it is for" if self.needs_density else None
        facts = {"name": self.name, "options": few([*self.options], 8), "set": set_already, "needs": needs}
        return Card("Criterion", facts)

    def __call__(self, job: Pass, **options: object) -> list[Scores]:
        """Returns the scores of every target of a pass; ``options`` are those of the function."""
        return self.function(job, **{**self.settings, **options})

    def with_options(self, texts: Sequence[str]) -> "Criterion":
        """Returns the criterion with options set, each given as ``"name=value"``.

        Raises:
            MaskError: no such option, given twice, or a value of another type or range.
        """
        pairs = [self._option(text) for text in texts]
        settings = dict(pairs)
        if len(settings) < len(pairs):
            raise MaskError(f"an option stands twice in {','.join((self.name, *texts))!r}; give each once")
        # in rounds, the sizes of the masks between follow from the last one; an order has room for all of them
        in_rounds = settings.get("rounds", 1) != 1 and not self.ranks
        return replace(self, settings=settings, needs_density=self.needs_density or in_rounds)

    def _option(self, text: str) -> tuple[str, object]:
        """An option's name, and its value as its type has it."""
        name, _, value = (part.strip() for part in text.partition("="))
        if name not in self.options:
            raise MaskError(
                f"{self.name} has no option {name!r}{closest(name, self.options)}; it has "
                f"{', '.join(self.options) or 'none'}, written '{self.name},option=value'"
            )
        kind = self.options[name]
        try:
            read = _read(value, kind)
        except ValueError:
            wanted = {int: "a whole number", float: "a number"}.get(kind, "numbers, as in 0.1/0.05")
            raise MaskError(f"option {name} of {self.name}: expected {wanted}, got {value!r}") from None
        if kind in (int, float):  # now, and not after pictures were read
            within(name, read, replace(RANGES[name], raised=MaskError))
        return name, read

    def arguments(self, given: Mapping[Passed, object]) -> dict[str, object]:
        """Returns what of the given it takes; what its own text says stands."""
        return {name: given[name] for name in self.passed if name not in self.settings}


def _read(text: str, kind: type) -> object:
    if kind in (int, float):
        return kind(text)
    return text if kind is str else tuple(map(float, text.split("/")))
