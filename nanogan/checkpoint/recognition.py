"""What a file of weights holds: a DCGAN of nanogan's, one under other names, or what differs from it.

Only names and shapes are compared. Strides, paddings and activations are not in such a file: a network that differs in
nothing else is taken for nanogan's.
"""

import itertools
import re
import shlex
from collections import Counter
from dataclasses import dataclass, field

from nanogan.errors import UserError
from nanogan.layers.loading import is_unread
from nanogan.models import conditional, cyclegan, dcgan, discogan, paper, semisupervised, stackgan, vanilla

STATISTICS = "running_mean", "running_var"
NORM = "weight", "bias", *STATISTICS
WRAPPERS = "module.", "_orig_mod."  # of DataParallel and of averages, of torch.compile
DEPTH = 3  # of names that a network among others may have, "models.G.ema"
PARAMETRISED = 'torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")'
REPARAMETRISED = {  # the end of an array's name: what torch made the weight with, and what makes it a weight again
    ".weight_u": ("spectral_norm", "torch.nn.utils.remove_spectral_norm(layer)"),
    ".weight_g": ("weight_norm", "torch.nn.utils.remove_weight_norm(layer)"),
    ".parametrizations.weight.0._u": ("spectral_norm", PARAMETRISED),
    ".parametrizations.weight.original1": ("weight_norm", PARAMETRISED),
}
LISTED = 5  # differences in one sentence


@dataclass
class Recognition:
    """What :func:`recognise` found."""

    kind: str | None = None  # "generator" or "discriminator"; None: neither
    options: dict | None = None  # of that function of nanogan.models.dcgan; None if its convolutions have other shapes
    differences: list[str] = field(default_factory=list)  # in words; empty if nothing differs
    renames: dict[str, str] = field(default_factory=dict)  # layer's name -> nanogan's, if nothing but names differs
    extra: list[str] = field(default_factory=list)  # arrays that nanogan's has not, if nothing but them differs

    @property
    def fits(self):
        return self.kind is not None and not self.differences

    def __str__(self):
        if self.kind is None:
            return f"neither a DCGAN generator nor discriminator ({listed(self.differences)})"
        name = f"a DCGAN {self.kind}"
        if self.options:
            size, channels = self.options["image_size"], self.options["channels"]
            name += f" of {size} x {size} pixels with {channels} channel{'s' if channels > 1 else ''}, "
            name += "".join(f"{key} {self.options[key]}, " for key in ("latent", "width") if key in self.options)[:-2]
        if self.renames:
            return f"{name}, under other names ({listed(self.differences)})"
        return f"{name}, which differs from nanogan's: {listed(self.differences)}" if self.differences else name


def listed(texts):
    more = f"; and {len(texts) - LISTED} more" if len(texts) > LISTED else ""
    return "; ".join(texts[:LISTED]) + more


def recognise(state):
    """Return a Recognition of the network whose state dict this is: {name: array}, of which only shapes are read."""
    state = essential(state)
    for kind, options_of, build in (
        ("generator", dcgan.options_of, dcgan.generator),
        ("discriminator", dcgan.discriminator_options_of, dcgan.discriminator),
    ):
        try:
            options = options_of(state)
            own = essential(build(**options).state_dict())
        except UserError:
            continue
        if _shapes(own) == _shapes(state):
            return Recognition(kind, options)
    return _stranger(state)


def known(state):
    """Return what network of nanogan's, other than a DCGAN, a state dict is of, and what uses it; None if of none."""
    for infer, text in KNOWN:
        try:
            infer(state)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # a UserError is a ValueError
            continue
        return text
    return None


def described(state):
    """Return in words what network a state dict is of."""
    return known(state) or str(recognise(unwrapped(state)[0]))


def _classifier(state):
    first, hidden, last = (state[f"{i}.weight"].shape for i in (0, 7, 10))
    if (first[2:], len(last)) != ((4, 4), 2) or hidden[0] != last[1]:
        raise ValueError


KNOWN = (
    (conditional.options_of, "a conditional DCGAN generator, as conditional_dcgan.py and acgan.py train"),
    (semisupervised.options_of, "a generator of semisupervised.py"),
    (vanilla.options_of, "a vanilla GAN generator, as vanilla_gan.py trains"),
    (cyclegan.options_of, "a CycleGAN's translator, as cyclegan.py trains"),
    (discogan.options_of, "a DiscoGAN's translator, as discogan.py trains"),
    (stackgan.network_of, "a StackGAN's generator, as stackgan.py trains"),
    (paper.options_of, "a discriminator of the DCGAN paper's for CIFAR-10 or SVHN"),
    (_classifier, "a classifier, as train_classifier.py trains and --judge expects"),
)


def essential(state):
    """``state`` without the arrays that nothing depends on."""
    return {name: array for name, array in state.items() if not is_unread(name)}


def unwrapped(state):
    """Return ``state`` without the wrappers' beginnings that all of its names have, and these, in a list.

    Arrays that nothing depends on may lack them, and are left out then.
    """
    taken = []
    for wrapper in WRAPPERS * 2:  # compiled, then parallel, or the other way round
        names = essential(state)
        if names and all(name.startswith(wrapper) and name != wrapper for name in names):
            state = {name[len(wrapper) :]: array for name, array in state.items() if name.startswith(wrapper)}
            taken.append(wrapper)
    return state, taken


def networks_in(state):
    """Return {"generator": Recognition, ...}: the beginnings of names below which a DCGAN stands, with what it is.

    Those that are opened after renames too. Empty if the whole of ``state`` is one.
    """
    found, groups, alone = {}, {}, recognise(state).kind is not None
    for name, array in essential(state).items():
        parts = name.split(".")
        for depth in range(1, min(DEPTH, len(parts) - 2) + 1):
            groups.setdefault(".".join(parts[:depth]), {})[".".join(parts[depth:])] = array
    for beginning, group in sorted(groups.items(), key=lambda item: item[0].count(".")):
        if any(beginning.startswith(f"{outer}.") for outer in found) or len(found) >= LISTED:
            continue
        if not beginning.isprintable():  # it would stand in a command
            continue
        recognition = recognise(unwrapped(group)[0])
        if recognition.fits or (recognition.renames and not alone):
            found[beginning] = recognition
    return found


def renames_between(state, own):
    """Return {layer's name in ``state``: in ``own``} if these state dicts differ only in names; else None.

    Layers are matched by the names and shapes of their arrays; those that are alike, in the order of their names.
    """
    state, own = essential(state), essential(own)
    theirs, ours = ([(shapes, module) for module, shapes in _modules(arrays).items()] for arrays in (state, own))

    def order(item):
        return sorted(item[0].items()), natural(item[1])

    theirs, ours = sorted(theirs, key=order), sorted(ours, key=order)
    if [shapes for shapes, _ in theirs] != [shapes for shapes, _ in ours]:
        return None
    pairs = {old: new for (_, old), (_, new) in zip(theirs, ours, strict=True)}
    # told in the order of the network, as far as the names of its own layers tell it
    return {old: pairs[old] for old in sorted(pairs, key=lambda name: natural(pairs[name])) if old != pairs[old]}


def natural(name):
    """A key that sorts "main.10" behind "main.9"."""
    return re.sub(r"\d+", lambda digits: digits[0].zfill(20), name)


def rename_flags(renames):
    """The flags of nanogan.convert that rename layers so; one, --key or --rename, if all differ in the beginning."""
    beginnings = {_differing_beginnings(old, new) for old, new in renames.items()}
    if len(beginnings) == 1:
        (old, new) = beginnings.pop()
        if old:
            return "--rename " + shlex.quote(f"{old}={new}") if new else key_flag(old)
    return " ".join("--rename " + shlex.quote(f"{old}={new}") for old, new in renames.items())


def key_flag(beginning):
    """The flag of nanogan.convert that takes the arrays "beginning.*"."""
    return f"--key {shlex.quote(beginning)}"


def joined(first, second):
    """Two of convert's flags as it takes them: a --key below another becomes one."""
    if first and second.startswith("--key "):
        return f"{first}.{second.removeprefix('--key ')}"
    return f"{first} {second}".strip()


def _differing_beginnings(old, new):
    """("net", "main") of "net.0" and "main.0"."""
    old, new = old.split("."), new.split(".")
    while old and new and old[-1] == new[-1]:
        old.pop()
        new.pop()
    return ".".join(old), ".".join(new)


def told(name):
    """A name out of a file, fit for one line of a message."""
    return name if name.isprintable() and len(name) <= 80 else f"{name[:80]!r}"


# ------------------------------------------------------------------------------------------------- what differs


def _stranger(state):
    """Recognise a network that is not quite ours."""
    shapes = _shapes(state)
    names = [name for name in shapes if len(shapes[name]) == 4]
    for ending, (function, undo) in REPARAMETRISED.items():
        for name in shapes:
            if name.endswith(ending):
                reason = (
                    f"{told(name)} is of torch's {function}: in torch, call {undo} of each such layer and save again"
                )
                return Recognition(None, None, [reason])
    if len(names) < 2:
        return Recognition(None, None, [f"it holds {_count(len(names), 'convolution')}, at least 2 were expected"])
    for convs in (sorted(names, key=natural), names):  # by name, else in the file's own order
        pairs = [(shapes[one], shapes[other]) for one, other in itertools.pairwise(convs)]
        if all(one[1] == other[0] for one, other in pairs):  # (C_in, C_out, KH, KW)
            return _compared("generator", convs, state)
        if all(one[0] == other[1] for one, other in pairs):  # (F, C, KH, KW)
            return _compared("discriminator", convs, state)
    return Recognition(
        None,
        None,
        [f"its {_count(len(names), 'convolution')} do not make a row, each with the channels of the one before"],
    )


def _compared(kind, convs, state):
    generator, shapes, modules = kind == "generator", _shapes(state), _modules(state)
    outputs = [shapes[name][1 if generator else 0] for name in convs]
    mapped, hidden = (0, outputs[:-1]) if generator else (len(convs) - 1, outputs[1:-1])  # the smallest map's
    differences = []
    for i, name in enumerate(convs):
        kernel = shapes[name][2:]
        allowed = range(4, 8) if i == mapped else (4,)
        if kernel[0] != kernel[1] or kernel[0] not in allowed:
            expected = "4x4 to 7x7" if i == mapped else "4x4"
            differences.append(f"{told(name)} has a kernel of {kernel[0]}x{kernel[1]} where {expected} was expected")
    widths = outputs[:-1] if generator else outputs[-2::-1]  # 8w, 4w, 2w, w
    if any(wide != 2 * narrow for wide, narrow in itertools.pairwise(widths)):
        row = " -> ".join(map(str, outputs[:-1]))
        differences.append(
            f"its layers are {row} wide where each was expected to be {'half' if generator else 'twice'} the one before"
        )
    if not generator and outputs[-1] != 1:
        differences.append(f"{told(convs[-1])} gives {outputs[-1]} numbers where one logit was expected")
    biases = [f"{module}.bias" for module in map(_module, convs) if "bias" in modules[module]]
    if biases:
        differences.append(f"{_named(biases)}: nanogan's convolutions have no biases")
    differences += _differing_norms(modules, hidden)
    extra = [name for name in shapes if name not in convs and not _belongs(name, modules)]
    if extra:
        rest = [f"{name} of shape {shapes[name]}" for name in extra]
        differences.append(f"{_named(rest)}: nanogan's has no such array")
    options, own = _options(kind, [shapes[name] for name in convs])
    renames = (renames_between(state, own) or {}) if options and not differences else {}
    first = _module(convs[0])
    if renames:
        changes = ", ".join(f"{told(old)} for {new}" for old, new in list(renames.items())[:3])
        differences.append(f"only its layers' names differ: {changes}{', ...' if len(renames) > 3 else ''}")
    elif options is None and not differences:
        differences.append(f"nanogan builds no network of its {len(convs)} convolutions")
    elif first != "main.0":
        differences.append(f"its layers are named {told(first)}, ... where main.0, ... was expected")
    return Recognition(kind, options, differences, renames, extra if options and len(differences) == 1 else [])


def _differing_norms(modules, hidden):
    """What differs in the BatchNorms, of which one was expected behind each of the ``hidden`` convolutions."""
    norms = {module: shapes["weight"] for module, shapes in modules.items() if len(shapes.get("weight", ())) == 1}
    differences = []
    got, expected = Counter(shape[0] for shape in norms.values()), Counter(hidden)
    for one, other, words in ((expected, got, "it lacks"), (got, expected, "it has too many:")):
        if one - other:
            sizes = ", ".join(map(str, sorted((one - other).elements(), reverse=True)))
            differences.append(f"{words} BatchNorm of {sizes} channels")
    for leaf in ("bias", *STATISTICS):
        without = [f"{module}.{leaf}" for module in norms if leaf not in modules[module]]
        if without:
            differences.append(f"{_named(without)}: missing")
    return differences


def _options(kind, shapes):
    """The options of ``kind`` that its convolution weights ask for, and its state dict then; or None, {}."""
    arrays = {f"{i:09}": _Shape(shape) for i, shape in enumerate(shapes)}
    try:
        options = (dcgan.options_of if kind == "generator" else dcgan.discriminator_options_of)(arrays)
        return options, getattr(dcgan, kind)(**options).state_dict()
    except UserError:
        return None, {}


class _Shape:
    def __init__(self, shape):
        self.shape, self.ndim = shape, len(shape)


def _shapes(state):
    return {name: tuple(array.shape) for name, array in state.items()}


def _modules(state):
    """Return {"main.1": {"weight": (64,), ...}}."""
    result = {}
    for name, shape in _shapes(state).items():
        result.setdefault(_module(name), {})[name.rpartition(".")[2]] = shape
    return result


def _module(name):
    return name.rpartition(".")[0]


def _belongs(name, modules):
    """Whether it is a convolution's bias or one of a BatchNorm's arrays."""
    module, _, leaf = name.rpartition(".")
    weight = modules[module].get("weight", ())
    if len(weight) == 4:
        return leaf == "bias"
    size = modules[module][leaf]
    return len(weight) == 1 and leaf in NORM and size == weight


def _named(names):
    return told(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _count(number, noun):
    return f"{number or 'no'} {noun}{'s' * (number != 1)}"
