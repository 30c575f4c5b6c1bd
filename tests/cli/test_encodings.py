"""A name that the terminal's encoding lacks is spelt out; it never costs the answer."""

import json
import os
import subprocess

import numpy as np
import pytest
from commandline import FEATSTORE
from PIL import Image

FOLDER, ILL, WELL = "数据 é", "肺炎", "正常"
SETTINGS = {
    "ascii": ({"PYTHONIOENCODING": "ascii"}, "ascii"),
    "cp1252": ({"PYTHONIOENCODING": "cp1252:strict"}, "cp1252"),
    "C locale": ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "ascii"),
}


@pytest.fixture
def data(tmp_path):
    for seed, label in enumerate((ILL, WELL)):
        (tmp_path / FOLDER / label).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng([seed, number]).integers(0, 200, (20, 20, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / FOLDER / label / f"é数{number}.png")
    (tmp_path / FOLDER / ILL / "cut é数.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return FOLDER


def ask(setting, *arguments):
    """Run the installed command; its output must be of the encoding that it was told."""
    added, encoding = SETTINGS[setting]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONIO"))}
    done = subprocess.run(
        [FEATSTORE, *arguments], capture_output=True, env=clean | added, timeout=240, check=False
    )
    out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert "UnicodeEncodeError" not in err
    assert "Traceback" not in err
    return done.returncode, out, err


@pytest.mark.parametrize(
    "setting", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("ascii", "cp1252")), "C locale"]
)
def test_check_answers_in_any_encoding(data, setting):
    code, out, err = ask(setting, "check", data)
    assert code in {0, 3}, err
    assert "classes:" in out
    if setting != "C locale":  # which knows bytes alone, so that names are spelt out byte by byte
        assert f"{ILL.encode('ascii', 'backslashreplace').decode()} " in out


@pytest.mark.slow
def test_json_help_and_errors_are_spelt_out_too(data):
    code, out, _ = ask("ascii", "check", data, "--json")
    assert json.loads(out)["classes"][WELL] == 4
    for arguments in (["--help"], ["check", "--help"]):
        assert ask("ascii", *arguments)[0] == 0
    code, _, err = ask("ascii", "check", f"{FOLDER} nicht")
    assert code == 2
    assert "\\u6570\\u636e \\xe9 nicht" in err
    code, _, err = ask("cp1252", "check", data, "--数é")
    assert code == 2
    assert "\\u6570é" in err
    code, _, err = ask("cp1252", "predict", f"{FOLDER} nicht", data)
    assert code == 1
    assert "\\u6570\\u636e é nicht holds no readable run" in err
