"""Which configurations are searched, and in which one each rule is taken out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import ablations
from .protocol import Model
from .values import I1, I1_LEASE, I2, Config

# Searched by `make test`: each is exhausted.
SMALL = (
    Config("no fault, look and count apart, on and off", counts=True, peeks=True),
    Config("a flush and two pauses, one writes", faults={"flush": 1, "stop": 2}, writers=1, offs=False),
    Config("a flush, others between heartbeat and write-back", faults={"flush": 1}, writers=1, offs=False, races=True),
    Config("a flush and off", faults={"flush": 1}, writers=1),
    Config("a flush, a kill", faults={"flush": 1, "kill": 1}, writers=1, offs=False),
    Config("a flush, a goodbye", faults={"flush": 1, "leave": 1}, writers=1, offs=False),
    Config("a failover of a lagging replica, a boot", {"failover": 1, "boot": 1}, up=1, offs=False, lags=True),
    Config(
        "a failover of a replica that has not heard of one, WAIT, two pauses",
        {"failover": 1, "stop": 2},
        writers=1,
        offs=False,
        lags=True,
        unheard=True,
        durable=True,
    ),
    Config("leases, a partition, a clock that drifts", {"cut": 1, "drift": 1}, writers=1, offs=False, leases=True),
    Config("a boot, a flush, a pause", {"boot": 1, "flush": 1, "stop": 1}, up=1, quiet=1, offs=False),
)
# Searched by hand (python -m tests.model): some are exhausted, some cut off at their limit. Where a fault may befall
# either process, or either operator may be first, and all of it is too much at once, each case is searched apart;
# together they are the whole.
LARGE = (
    Config("a flush and a pause", faults={"flush": 1, "stop": 1}, offs=False),
    Config("a flush and two pauses", faults={"flush": 1, "stop": 2}, offs=False),
    *(
        Config(
            f"a flush, a pause of p{stopped}, a kill of p{killed}, a boot",
            {"flush": 1, "stop": 1, "kill": 1, "boot": 1},
            writers=1,
            offs=False,
            only={"stop": (stopped,), "kill": (killed,)},
        )
        for killed in (0, 1)
        for stopped in (0, 1)
    ),
    Config("a flush, two pauses, a goodbye", {"flush": 1, "stop": 2, "leave": 1}, writers=1, offs=False),
    Config("a flush, a pause and off", faults={"flush": 1, "stop": 1}),
    Config("a flush, a pause, look and count apart", {"flush": 1, "stop": 1}, offs=False, counts=True),
    Config("a flush, a kill, a boot", {"flush": 1, "kill": 1, "boot": 1}, offs=False),
    Config("a boot, a flush, a pause, both write", {"boot": 1, "flush": 1, "stop": 1}, up=1, offs=False),
    Config("two boots, a flush, a pause", {"boot": 2, "flush": 1, "stop": 1}, up=0, offs=False),
    Config(
        "a boot, a flush, a pause, an answer that is lost",
        {"boot": 1, "flush": 1, "stop": 1, "deaf": 1},
        up=1,
        quiet=1,
        offs=False,
    ),
    Config("a boot, two flushes, a pause", {"boot": 1, "flush": 2, "stop": 1}, up=1, quiet=1, offs=False),
    Config("the same, nobody can prove a death", {"flush": 1, "kill": 1, "boot": 1}, offs=False, proven=False),
    Config("a flush, a kill, a boot, two operators", {"flush": 1, "kill": 1, "boot": 1}, 1, 1, operators=2),
    *(
        Config(
            f"a flush, a boot, two operators, op{first} first", {"flush": 1, "boot": 1}, up=1, operators=2, first=first
        )
        for first in (0, 1)
    ),
    Config("a failover, off", {"failover": 1}, lags=True),
    Config("a failover, two operators", {"failover": 1}, 1, 1, operators=2, lags=True),
    *(
        Config(
            f"a failover, WAIT, a kill of p{killed}, a boot",
            {"failover": 1, "kill": 1, "boot": 1},
            offs=False,
            lags=True,
            durable=True,
            only={"kill": (killed,)},
        )
        for killed in (0, 1)
    ),
    Config("a failover, a pause", {"failover": 1, "stop": 1}, offs=False, lags=True),
    Config("leases, a partition, a clock that drifts, off", {"cut": 1, "drift": 1}, leases=True),
    Config("leases, a partition, a flush", {"cut": 1, "flush": 1}, offs=False, leases=True),
    Config("leases, a pause, a flush", {"stop": 1, "flush": 1}, offs=False, leases=True),
    Config("leases, a split", {"split": 1}, leases=True),
    Config("leases, a split of a lagging replica", {"split": 1}, offs=False, leases=True, lags=True),
    Config("a fence, two operators", operators=2, fence=True),
    Config("a fence, two operators, a flush, a pause", {"flush": 1, "stop": 1}, 1, 1, operators=2, fence=True),
)


@dataclass(frozen=True)
class Ablation:
    """A rule taken out, and the configuration in which that is looked for.

    Attributes:
        rule: Its number in the design, or its name.
        without: The protocol without it.
        config: What may happen; with the rule in force nothing is broken by it.
        breaks: The promise that goes with it.
        large: Too large for `make test`, or its rule is taken out there in a smaller configuration.
    """

    rule: str
    without: type[Model]
    config: Config
    breaks: str = I1
    large: bool = False

    @property
    def said(self) -> str:
        """What was taken out, in one line."""
        return (self.without.__doc__ or "").splitlines()[0]


def _alone(name: str, faults: dict[str, int], **more: bool | int) -> Config:
    """Return a configuration of one process."""
    return replace(Config(name, faults, processes=1, up=1, offs=False), **more)  # type: ignore[arg-type]


_FLUSH = Config("a flush", {"flush": 1}, writers=1, offs=False)
_LATE = _alone("a flush, a pause, a report that is late", {"flush": 1, "stop": 1}, packs=True)
_PARTED = Config("leases, a partition, a flush, one writes", {"cut": 1, "flush": 1}, writers=1, offs=False, leases=True)
_SPLIT = Config("leases, a split, one writes", {"split": 1}, writers=1, offs=False, leases=True)
_RELEASED = _alone("leases, a partition, a flush, off", {"cut": 1, "flush": 1}, offs=True, leases=True)
_RENEWED = _alone("a flush, a kill, a boot", {"flush": 1, "kill": 1, "boot": 1})
_PAUSED = next(config for config in SMALL if config.faults == {"flush": 1, "stop": 2})
_UNHEARD = next(config for config in SMALL if config.unheard)
# The four of LARGE together.
_DIED = Config("a flush, a pause, a kill, a boot", {"flush": 1, "stop": 1, "kill": 1, "boot": 1}, writers=1, offs=False)
_LEFT = next(config for config in SMALL if "leave" in config.faults)
_FAILED_OVER = next(config for config in SMALL if config.lags and not config.unheard)
_BEGUN = next(config for config in SMALL if config.quiet)
_UNHEARD_OF = next(config for config in LARGE if "deaf" in config.faults)
_EMPTIED_TWICE = next(config for config in LARGE if config.faults.get("flush") == 2)
_TWICE = _alone("a failover, two operators", {"failover": 1}, operators=2, offs=True, lags=True)
_FENCED = _alone("a fence, two operators", {}, operators=2, offs=True, fence=True)

ABLATIONS = (
    Ablation("count first", ablations.LookFirst, _alone("no fault, one process", {}, counts=True)),
    Ablation("2", ablations.BlindWrites, _alone("a flush, others in between", {"flush": 1}, races=True), I2),
    Ablation("3", ablations.EpochsDecide, _alone("a flush, one process", {"flush": 1}), I2),
    Ablation("3", ablations.EpochsDecideFollowed, _TWICE, large=True),
    Ablation("5", ablations.WholeOverNothing, _RENEWED),
    Ablation("6", ablations.RegistryIgnored, _FLUSH),
    Ablation("6", ablations.MemoryAlone, _BEGUN),
    Ablation("6", ablations.AgeAlone, _PAUSED, large=True),
    Ablation("6", ablations.RegistryUnasked, _UNHEARD, large=True),
    Ablation("6", ablations.WholeTooEarly, _DIED, large=True),
    Ablation("6", ablations.LeaversForgotten, _LEFT),
    Ablation("7", ablations.AdmitsUnregistered, Config("a boot", {"boot": 1}, up=1, offs=False, peeks=True)),
    Ablation("7", ablations.AdmitsUnnoted, _BEGUN, large=True),
    Ablation("7", ablations.NotedByAnswers, _UNHEARD_OF, large=True),
    Ablation("7", ablations.AloneInANewRegistry, _EMPTIED_TWICE, large=True),
    Ablation("8", ablations.NoProbation, _FAILED_OVER),
    Ablation("8", ablations.LapsedKnows, _PARTED, I1_LEASE, large=True),
    Ablation("8", ablations.LapsedForgets, _RELEASED, I2),
    Ablation("10", ablations.ReadsRenew, _SPLIT, I1_LEASE),
    Ablation("11", ablations.ConfirmedByEpoch, _LATE),
    Ablation("11", ablations.SilentIsDrained, Config("a partition", {"cut": 1}, offs=False)),
    Ablation("13", ablations.FenceIsOneBit, _FENCED),
)

# Broken with every rule in force, and known: when one of these holds, it belongs above. The second is what the library
# does as well, and the model else leaves out: it does not help.
_UNKNOWN_TO_ALL = Config("a boot, a flush, two pauses", {"boot": 1, "flush": 1, "stop": 2}, up=1, quiet=1, offs=False)
OPEN = (
    (
        Model,
        _UNKNOWN_TO_ALL,
        "one begins while everybody else has been silent for longer than a member may be, so that nobody is waited "
        "for; it stands still and is lost with the registry, and those who were silent wake up and have never heard "
        "of it",
    ),
    (
        ablations.LooksAgain,
        _UNKNOWN_TO_ALL,
        "the same, where one that stood still looks at the store before it admits again: it had begun its write before",
    ),
)
