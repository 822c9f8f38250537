"""`fcnzoo train` as a command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fcnzoo.cli import app as commands
from fcnzoo.cli.train import train
from fcnzoo.training import Recipe, list_recipes

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(train)


def test_train_and_resume(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    """Options and --set override the file; --resume needs the output folder alone."""
    recipe = tiny("unused")
    (tmp_path / "mine.json").write_text(recipe.to_json())
    out = tmp_path / "0123"  # a path that looks like a number
    arguments = [
        str(tmp_path / "mine.json"),
        "--out",
        str(out),
        "--epochs",
        "1",
        "--lr",
        "0.02",
        "--set",
        "run.seed=3",
        "--cpu",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "best val mean IoU" in result.output
    done = Recipe.load(out)
    assert (done.schedule.epochs, done.optim.lr, done.run.seed, done.run.out) == (1, 0.02, 3, str(out))
    again = CliRunner().invoke(app, ["--resume", "--out", str(out)])
    assert again.exit_code == 0, again.output
    assert again.output == result.output


def test_usage() -> None:
    """--list prints every recipe; no recipe at all is wrong usage; a bad field is the library's error."""
    listed = CliRunner().invoke(app, ["--list"])
    assert [line.partition("\t")[0] for line in listed.output.splitlines()] == list_recipes()
    assert CliRunner().invoke(app, []).exit_code == 2
    result = CliRunner().invoke(app, ["camvid_lite0", "--set", "optim.rl=1"])
    assert isinstance(result.exception, ValueError)
    assert "has no field 'rl'" in str(result.exception)


def test_stopped_run_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run stopped by a signal ends with exit code 130 and the command that resumes it."""

    def stopped(recipe: Recipe, *, resume: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fcnzoo.training.run.train", stopped)
    result = CliRunner().invoke(app, ["camvid_lite0", "--out", "runs/a"])
    assert result.exit_code == 130
    assert "fcnzoo train --resume --out runs/a" in result.output


def test_a_run_that_diverges_ends_with_one_line(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    """No traceback: what happened, where, and what to change; exit code 1."""
    (tmp_path / "recipe.json").write_text(
        tiny("out", "optim.optimizer=sgd", "optim.lr=1e30").to_json(), encoding="utf-8"
    )
    done = CliRunner().invoke(commands, ["train", str(tmp_path / "recipe.json")])
    assert done.exit_code == 1 and "Lower optim.lr" in done.stderr, done.output
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
