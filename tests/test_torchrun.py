"""Every torchrun command that is documented anywhere, exactly as it is written there."""

import dataclasses
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed.run

import video_sae
from demo.vlm.architecture import SIZES, build_model, build_processor
from tests.collect.video_files import noise, write_video
from tests.train_sae.stores import write_run

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("collect", "train_sae", "features", "steer", "demo")
PAGES = [
    *(page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if page.name != "log.md"),
    ROOT / "video_sae.py",
    *sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")),
]
COMMANDS = sorted(
    {
        found.rstrip(" &")
        for page in PAGES
        for found in re.findall(r"torchrun -[^`\n]*", re.sub(r" *\\\n *", " ", page.read_text(encoding="utf-8")))
    }
)
WHOLE = [command for command in COMMANDS if "…" not in command]
"""Those that stand there with all their arguments; others end with `COMMAND …`, whatever the command."""


def words_of(command: str) -> list[str]:
    return shlex.split(command.partition("COMMAND …")[0] + ("train --run a --site b" if "…" in command else ""))


def test_there_are_commands_of_each_stage_that_runs_in_several_processes() -> None:
    stages = {words_of(command)[words_of(command).index("--") + 1] for command in WHOLE}
    assert stages == {"collect", "train", "features", "steer"}
    assert any("shard_latents" in command for command in WHOLE)


@pytest.mark.parametrize("command", COMMANDS)
def test_torchrun_leaves_the_arguments_to_the_program(command: str) -> None:
    words = words_of(command)
    parsed = torch.distributed.run.get_args_parser().parse_args(words[1:])
    given = words[words.index("--") + 1 :]
    assert (parsed.module, parsed.training_script) == (True, "video_sae")
    assert parsed.nproc_per_node == "8"
    # Python's argparse keeps the dashes in some versions.
    assert parsed.training_script_args in (given, ["--", *given])
    assert video_sae._parse(given)[0].name == given[0]


def test_the_dashes_may_reach_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert video_sae.main(["--", "--version"]) == 0
    assert capsys.readouterr().out.startswith("video-sae")
    assert video_sae.main(["--", "train", "--run", "r", "--site", "s", "--k", "0"]) == 2
    assert "--k 0 is too small" in capsys.readouterr().err


def test_without_the_dashes_torchrun_takes_run_for_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Why they are there; where this fails one day, they may go."""
    with pytest.raises(SystemExit):
        torch.distributed.run.get_args_parser().parse_args(["-m", "video_sae", "train", "--run", "r"])
    assert "ambiguous option: --run" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("command", [each for each in WHOLE if not {"features", "steer"} & {*each.split()}])
def test_it_runs(command: str, tmp_path: Path) -> None:
    """With two processes; only paths and sizes, and their number, are other than documented.

    `tests/features/test_processes.py` and `tests/steer/test_processes.py` run the others, which need an SAE and more.
    """
    run = write_run(tmp_path / "run", n_videos=200, others=("resid/8", "resid/12"))
    data, model = tmp_path / "data", tmp_path / "model"
    for i in range(4):
        write_video(data / "videos" / f"v{i}.mp4", [noise(48, 64, seed=100 * i + t) for t in range(12)])
    size = dataclasses.replace(SIZES["tiny"], layers=13)
    build_model(size, 0).save_pretrained(model)
    build_processor(size).save_pretrained(model)
    out = tmp_path / "out"
    given = {"runs/plm1b": out if " collect " in command else run, "RUN": out, "$RUN": out, "8": 2}
    given |= dict.fromkeys(("DIR", "data", "$DATA"), data) | dict.fromkeys(
        ("MODEL", "facebook/Perception-LM-1B"), model
    )
    # Of a cluster's job, and sizes for one GPU or more.
    given |= {"$SLURM_NNODES": 1, "$head:29500": "localhost:0", "$SLURM_JOB_ID": "job", "32768": 256, "65536": 1024}
    words = [str(given.get(word, word)) for word in words_of(command)]
    words[:1] = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    if "collect" in words:
        assert len(list((out / "activations").glob("rank-*.zarr"))) == 2
    else:
        assert len(list((run / "sae").glob("*/cfg.json"))) == 1
