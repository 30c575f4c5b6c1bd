"""Values of options that cannot be meant: the error gives an example, and every example that it gives is taken."""

import re
import shlex

import pytest
import typer
from commandline import featstore
from featstore_cli import options
from featstore_cli.main import app

from featstore.backbones.onnx_backbone import parse_settings
from featstore.errors import UsageError
from featstore.images.formats.nifti import parse_slices
from featstore.images.recipe import parse_recipe

GIVEN = re.compile(r"(?<!\S)(--[a-z][a-z-]*)(?:=| )('[^']*'|[^\s`]*[^\s`.;,?])")
STEP = re.compile(r"\b(?:rotate|shear|zoom|shift|flip|fill)\([^)]*\)")


def leaves(command, name=()):
    if hasattr(command, "commands"):
        for word, part in command.commands.items():
            yield from leaves(part, (*name, word))
    else:
        yield name, command


COMMANDS = dict(leaves(typer.main.get_command(app)))
OPTIONS = [
    (words, parameter)
    for words, command in COMMANDS.items()
    for parameter in command.params
    if parameter.param_type_name == "option" and not parameter.is_flag
]
GRAMMARS = {
    "--range": options.parse_range,
    "--window": lambda text: options.parse_range(None, text),
    "--columns": lambda text: options.parse_columns([text]),
    "--slices": parse_slices,
    "--recipe": parse_recipe,
    "--ratios": options.parse_ratios,
    "--folds": options.parse_folds,
    "--seeds": options.parse_seeds,
    "--memory": lambda text: options.parse_bytes(text, "--memory"),
    "--target": lambda text: options.parse_bytes(text, "--target"),
    "--set": lambda text: options.parse_settings([text]),
    "--weights": lambda text: options.parse_weights([text]),
}
WRONG = [
    *(("--range", text) for text in ("5", "5,1", "a,b", "1,2,3", "nan,inf", "-inf,inf", "", "--json")),
    *(
        ("--window", text)
        for text in ("lungs", "x", "", "5", "40,-5", "-600", "lung,bone", "-600,1500,2", "file,lung")
    ),
    *(("--columns", text) for text in ("group", "=a", ",")),
    *(
        ("--slices", text)
        for text in ("", "up", "axial:every", "axial:every=0", "axial:range=75%-25%", "axial:x=3")
    ),
    *(("--recipe", text) for text in ("shear", "shear(x)", "turn(20)", "fill(3)")),
    *(("--ratios", text) for text in ("", "a/b", "60-20")),
    *(("--folds", text) for text in ("", "x", "-1", "sites")),
    *(("--seeds", text) for text in ("", "x", "4-1", "1;2")),
    *(("--memory", text) for text in ("", "much", "4QB", "-1GB")),
    *(("--set", text) for text in ("C", "=1")),
    *(("--weights", text) for text in ("random", "Xception=random:x", "=x")),
]


def needed(command, but=None):
    """Words for everything that a command cannot do without."""
    required = [one for one in command.params if one.required and one is not but]
    words = [[options.example_of(one)] if one.param_type_name == "option" else ["DATA"] for one in required]
    return [word for some in words for word in shlex.split(" ".join(some))]


@pytest.mark.parametrize(
    ("words", "parameter"), OPTIONS, ids=[f"{' '.join(w)} {p.opts[0]}" for w, p in OPTIONS]
)
def test_an_option_without_a_value_is_met_with_an_example_that_the_command_takes(words, parameter):
    command = COMMANDS[words]
    with pytest.raises(UsageError, match=f"{parameter.opts[0]} stands there without a value") as error:
        command.make_context(words[-1], [*needed(command, parameter), parameter.opts[0]])
    (example,) = re.findall(r"^Write for instance (--.*)$", error.value.remedy)
    context = command.make_context(words[-1], [*needed(command, parameter), *shlex.split(example)])
    value = context.params[parameter.name]
    assert value is not None
    text = shlex.split(example.removeprefix(parameter.opts[0]).lstrip("= "))[0]
    if (parse := GRAMMARS.get(parameter.opts[0])) and words != ("split",):
        parse(text)


@pytest.mark.parametrize(("option", "text"), WRONG)
def test_a_value_that_does_not_parse_is_met_with_examples_that_do(option, text):
    with pytest.raises(UsageError) as error:
        GRAMMARS[option](text)
    given = [value for name, value in GIVEN.findall(error.value.remedy) if name == option]
    if option == "--recipe":
        given += STEP.findall(error.value.remedy)
    assert given, error.value.remedy
    for value in given:
        GRAMMARS[option](shlex.split(value)[0])


@pytest.mark.parametrize("text", ["mean", "mean=x", "foo=1", "input_size=big"])
def test_settings_of_a_network_that_do_not_parse_are_met_with_some_that_do(text):
    with pytest.raises(UsageError) as error:
        parse_settings("A", text)
    (example,) = re.findall(r"A=\S+\.onnx\[(.*)\]", error.value.remedy)
    assert parse_settings("A", example)


def test_it_is_two_lines_of_the_installed_command():
    done = featstore("extract", "DATA", "--range")
    assert done.code == 2
    assert done.err.rstrip("\n").split("\n")[-2:] == [
        "featstore: --range stands there without a value.",
        "           Write for instance --range=-1350,150",
    ]
    done = featstore("compare", "DATA", "--margin", "small")
    assert (done.code, "Write for instance --margin 0.01" in done.err) == (2, True)
    done = featstore("finetune", "DATA")
    assert (done.code, "--backbone is needed." in done.err) == (2, True)
