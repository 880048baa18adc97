"""Names on the command line: what each action declares, what is suggested for a wrong name, what former names do."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path

import pytest

from avsr.cli import arguments
from avsr.cli.arguments import add_old_name, add_old_place, add_output_dir, model_name, old_names
from avsr.cli.console import UsageError
from avsr.cli.main import COMMANDS, argument_parser, command_actions, main
from avsr.cli.suggestions import COMMANDS as COMMAND_MEANINGS
from avsr.cli.suggestions import OPTIONS as OPTION_MEANINGS
from avsr.cli.suggestions import suggest
from avsr.evaluation.conditions import DEFAULT_SEEDS

ROOT = Path(__file__).resolve().parents[1]
LINES = [(command, action) for command in COMMANDS for action in command_actions(command) or [None]]
SHORT = {"--output-dir": "-o", "--output": "-o", "--format": "-f", "--model": "-m", "--language": "-l"}


def error(words: str, capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The one line that a wrong command line gives, without the name of the program."""
    assert main(words.split()) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err.removeprefix("avsr: ").rstrip("\n")


def options(command: str, action: str | None) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", argument_parser(command, action).format_help()))


class TestActions:
    @pytest.mark.parametrize(
        ("words", "own", "of_another"),
        [
            ("noise plan", "--split", "--output-dir"),
            ("noise render", "--output-dir", "--snr"),
            ("bench latency", "--chunk-ms", "--runs"),
            ("bench speed", "--runs", "--chunk-ms"),
            ("prepare folder", "--held-out-speakers", "3 in 40 are dev"),
            ("prepare grid", "3 in 40 are dev", "pretrain.txt"),
            ("models list", "--json", "NAME|PATH"),
            ("models show", "NAME", "all models"),
            ("models pull", "--accept-terms", "all models"),
            ("models remove", "NAME", "--accept-terms"),
        ],
    )
    def test_help_is_its_own(self, words: str, own: str, of_another: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([*words.split(), "--help"]) == 0
        out, err = capsys.readouterr()
        assert out.startswith(f"usage: avsr {words} ") and err == ""
        assert own in out and of_another not in out.partition("example:")[0]
        assert f"\nexample:\n  avsr {words}" in out

    @pytest.mark.parametrize("command", ["noise", "prepare", "bench", "models"])
    def test_help_of_the_command_lists_the_actions(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([command, "--help"]) == 0
        out = capsys.readouterr().out
        for name, action in command_actions(command).items():
            assert re.search(rf"^  {name} +{re.escape(action.summary)}$", out, re.MULTILINE)

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            ("bench", "bench needs an action: latency, speed (avsr bench --help explains)"),
            ("bench --json", "bench needs an action: latency, speed (avsr bench --help explains)"),
            ("bench fast", "bench has no action fast (avsr bench --help lists the actions)"),
            ("bench throughput", "bench has no action throughput; did you mean speed?"),
            ("prepare lrs3 x -o y", "prepare has no action lrs3; did you mean folder?"),
            ("models info", "models has no action info; did you mean show?"),
            ("models install base", "models has no action install; did you mean pull?"),
            ("models rm base", "models has no action rm; did you mean remove?"),
            ("models show", "the following arguments are required: NAME (avsr models show --help explains)"),
            ("noise plan m -o p", "the following arguments are required: --split (avsr noise plan --help explains)"),
        ],
    )
    def test_wrong_action(self, words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert error(words, capsys).startswith(line)

    def test_options_may_stand_before_the_action(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "no such folder" in error("prepare --workers 1 grid nowhere -o out", capsys, code=1)
        assert main(["bench", "--help", "speed"]) == 0
        assert capsys.readouterr().out.startswith("usage: avsr bench speed ")

    def test_an_action_name_after_the_action_is_an_argument(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "'list'" in error("models show list", capsys, code=1)


class TestCommands:
    def test_without_a_command_all_are_listed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        first, heading, *lines = err.splitlines()
        assert (first, heading) == ("avsr: no command given (avsr --help explains)", "commands:")
        assert [line.split(maxsplit=1) for line in lines] == [[name, summary] for name, summary in COMMANDS.items()]

    @pytest.mark.parametrize(
        ("word", "meant"),
        [
            ("subtitle", "transcribe"),
            ("transcibe", "transcribe"),
            ("eval", "evaluate"),
            ("benchmark", "bench"),
            ("check", "doctor"),
            ("live", "stream"),
            ("ls", "models"),
            ("xyzzy", None),
            ("download", None),
        ],
    )
    def test_unknown_command(self, word: str, meant: str | None, capsys: pytest.CaptureFixture[str]) -> None:
        hint = f"; did you mean {meant}?" if meant else ""
        assert error(f"{word} a.mp4", capsys) == f"unknown command {word}{hint} (avsr --help lists the commands)"

    @pytest.mark.parametrize("command", COMMANDS)
    def test_help_imports_its_own_module_only(self, command: str) -> None:
        code = f"import sys; from avsr.cli.main import main; main([{command!r}, '--help']); print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        loaded = set(done.stdout.split())
        assert not loaded & {"numpy", "torch", "cv2", "av", "yaml", "mediapipe", "lightning"}
        others = {f"avsr.cli.{'import_' if other == 'import' else other}" for other in COMMANDS if other != command}
        # Evaluation takes the options about noise from the noise command.
        assert loaded & others <= ({"avsr.cli.noise"} if command == "evaluate" else set())


class TestSuggestions:
    @pytest.mark.parametrize(
        ("words", "meant"),
        [
            ("transcribe a --lang en", "--language"),
            ("transcribe a --locale en", "--language"),
            ("transcribe a --out x", "--output-dir"),
            ("transcribe a --output x", "--output-dir"),
            ("transcribe a --outdir x", "--output-dir"),
            ("transcribe a --OUTPUT_DIR x", "--output-dir"),
            ("transcribe a --fmt srt", "--format"),
            ("transcribe a --form srt", "--format"),
            ("transcribe a --fromat srt", "--format"),
            ("transcribe a --gpu", "--device"),
            ("transcribe a --threads 2", "--workers"),
            ("transcribe a --clobber", "--overwrite"),
            ("transcribe a --verbose", "--debug"),
            ("transcribe a --workers-count 2", "--workers"),
            ("transcribe a -w 2", "--workers"),
            ("transcribe a --xyzzy", None),
            ("transcribe a --l", "--language"),
            ("stream a --workers 2", "--threads"),
            ("stream a --format srt", None),
            ("stream a -f srt", None),
            ("serve --format srt", None),
            ("compare a b --format json", "--json"),
            ("doctor a --output x", "--sheet"),
            ("train c --out x", "--output-dir"),
            ("noise plan m --noise-dir a=b", "--noise-folder"),
            ("noise plan m --noise-type a", "--noise-kinds"),
            ("noise plan m --out p", "--output"),
        ],
    )
    def test_unknown_option(self, words: str, meant: str | None, capsys: pytest.CaptureFixture[str]) -> None:
        name = next(word for word in words.split() if word.startswith("-"))
        command = " ".join(words.split()[: 2 if words.startswith("noise") else 1])
        hint = f"; did you mean {meant}?" if meant else ""
        assert error(words, capsys) == f"unknown option {name}{hint} (avsr {command} --help lists the options)"

    @pytest.mark.parametrize(
        ("name", "known", "meant"),
        [
            ("--lang", ["--language", "--face"], "--language"),
            ("-l", ["--language", "--look-ahead-ms"], "--language"),
            ("-f", ["--format", "--face"], "--format"),
            ("-f", ["--face", "--quiet"], None),
            ("-q", ["--quiet", "--face"], "--quiet"),
            ("-d", ["--device", "--debug"], None),
            ("--drop-vidoe", ["--drop-video", "--drop-audio"], "--drop-video"),
            ("--", ["--quiet"], None),
            ("", ["--quiet"], None),
        ],
    )
    def test_suggestion(self, name: str, known: Sequence[str], meant: str | None) -> None:
        assert suggest(name, known, OPTION_MEANINGS) == meant

    def test_meanings_lead_to_names_that_exist(self) -> None:
        every = {option for command, action in LINES for option in options(command, action)}
        assert {f"--{name}" for names in OPTION_MEANINGS.values() for name in names.split()} <= every
        assert {name for names in COMMAND_MEANINGS.values() for name in names.split()} <= COMMANDS.keys()

    def test_a_word_has_one_meaning(self) -> None:
        for meanings in (OPTION_MEANINGS, COMMAND_MEANINGS):
            words = [word for synonyms in meanings for word in synonyms.split()]
            assert len(words) == len(set(words))


class TestOneName:
    @pytest.mark.parametrize(("command", "action"), LINES)
    def test_short_names_are_everywhere_the_same(self, command: str, action: str | None) -> None:
        usage = argument_parser(command, action).format_help()
        for long, short in SHORT.items():
            if re.search(rf"{long}(?![\w-])", usage.partition("options:\n")[2].partition("\nexample")[0]):
                assert re.search(rf"{short} \S+, {long}(?![\w-])", usage), f"{command} {action}: {long}"
        assert not {"--noise", "--noises"} & options(command, action)

    @pytest.mark.parametrize(
        ("words", "lines"),
        [
            (
                "evaluate nowhere -m grid-tiny --noise-kinds white --output x",
                ["--output is now called -o/--output-dir"],
            ),
            (
                "evaluate nowhere -m grid-tiny --noises white --noise a=b --noise c=d",
                [
                    "--noises is now called --noise-kinds",
                    "--noise is now called --noise-folder",
                ],
            ),
            ("noise plan nowhere p --split x", ["the output is now an option: -o/--output p"]),
            ("noise render nowhere out", ["the output is now an option: -o/--output-dir out"]),
            ("prepare grid nowhere out", ["the output is now an option: -o/--output-dir out"]),
            ("import nowhere out", ["the output is now an option: -o/--output-dir out"]),
        ],
    )
    def test_former_names_work_and_say_so(
        self,
        words: str,
        lines: list[str],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(words.split()) == 1
        out, err = capsys.readouterr()
        *notes, failure = err.splitlines()
        assert out == "" and notes == [f"avsr: {line}" for line in lines]
        assert failure.startswith("avsr: nowhere: ")
        if "import" not in words:
            assert main([*words.split(), "--quiet"]) == 1
            assert capsys.readouterr().err == f"{failure}\n"

    def test_former_names_set_the_present_option(self) -> None:
        parser = argument_parser("evaluate")
        found = parser.parse_intermixed_args(
            "m --output x --noises a,b --noise k=f --noise-folder l=g --noise n=h".split()
        )
        assert found.output_dir == Path("x") and found.noise_kinds == ("a", "b")
        assert found.noise_folder == [("k", "f"), ("l", "g"), ("n", "h")]
        assert len(old_names(found)) == 3
        assert old_names(parser.parse_intermixed_args(["m", "-o", "x", "--noise-kinds", "a"])) == []
        assert "--noises" not in parser.format_help() and "--output " not in parser.format_help()

    def test_former_values_are_checked_like_present_ones(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert error("evaluate m --noise folder", capsys).startswith(
            "argument --noise: got 'folder', expected KIND=FOLDER"
        )

    def test_output_in_both_places(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert error("import a.nemo b -o c", capsys) == "b is one argument too many (avsr import --help explains)"

    @pytest.mark.parametrize("words", ["import a.nemo", "prepare folder src", "noise render plan"])
    def test_output_is_required(self, words: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert error(words, capsys).startswith("the following arguments are required: -o/--output-dir")
        command, action, *_ = [*words.split()[: 2 if words.startswith(("p", "n")) else 1], None]
        assert command is not None
        assert "[-h] -o DIR " in " ".join(argument_parser(command, action).format_usage().split())

    def test_folder_of_a_training_run(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given: list[list[str]] = []

        def train(config: str, overrides: list[str], *, on_message: object) -> Path:
            given.append(overrides)
            return Path("model")

        module = types.ModuleType("avsr.training.run")
        module.train = train  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "avsr.training.run", module)
        assert main(["train", "c.yaml", "a=1", "-o", "2024"]) == 0
        assert given == [["a=1", 'output="2024"']]  # in YAML a folder, not a number


class TestDefaults:
    @pytest.mark.parametrize(
        "words", ["transcribe a", "stream a", "serve", "evaluate m", "bench speed", "bench latency"]
    )
    @pytest.mark.usefixtures("nothing_installed")
    def test_model(self, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
        command, *rest = words.split()
        action = rest.pop(0) if command == "bench" else None
        notes: list[str] = []

        def model(*more: str) -> str:
            return model_name(argument_parser(command, action).parse_intermixed_args([*rest, *more]), notes.append)

        for value in (None, ""):
            monkeypatch.setenv("AVSR_MODEL", value) if value is not None else None
            with pytest.raises(UsageError, match="avsr models pull whisper-base installs one, and --model grid-tiny"):
                model()
        monkeypatch.setenv("AVSR_MODEL", "runs/mine")
        assert model() == "runs/mine" and model("-m", "other") == "other" and notes == []
        text = " ".join(argument_parser(command, action).format_help().split())
        assert "default: $AVSR_MODEL if that is set, else the best installed model for ordinary speech" in text

    @pytest.mark.usefixtures("nothing_installed")
    @pytest.mark.parametrize(
        "words",
        ["transcribe avsr/assets/demo.mp4", "stream avsr/assets/demo.mp4", "serve", "evaluate m", "bench speed"],
    )
    def test_without_any_model_the_line_says_how_to_get_one(
        self, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(ROOT)
        assert error(words, capsys).startswith("no model for ordinary speech is installed; avsr models pull")

    def test_seeds(self) -> None:
        assert arguments.DEFAULT_SEEDS == DEFAULT_SEEDS
        for command, action in (("evaluate", None), ("noise", "plan")):
            text = " ".join(argument_parser(command, action).format_help().split())
            assert "each seed gives one set of mixtures; default 1,2,3" in text


def test_old_names_need_no_knowledge_of_the_option() -> None:
    """Any option can be renamed, and any output can leave its place, with one line each."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("src")
    size = parser.add_argument("--size", type=int, default=1)
    add_old_name(parser, "--extent", size)
    add_old_place(parser, add_output_dir(parser, "where", required=False))
    found = parser.parse_intermixed_args(["in", "--extent", "7", "out"])
    assert (found.src, found.size, found.output_dir) == ("in", 7, Path("out"))
    assert old_names(found) == ["--extent is now called --size", "the output is now an option: -o/--output-dir out"]
    found = parser.parse_intermixed_args(["in"])
    assert (found.size, found.output_dir, old_names(found)) == (1, None, [])


def test_shipped_models_have_a_licence_and_the_hash_of_their_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--json"]) == 0
    shipped = [model for model in json.loads(capsys.readouterr().out)["models"] if model["state"] == "shipped"]
    assert shipped
    for model in shipped:
        assert (Path(model["folder"]) / "model.safetensors").is_file() and len(model["weights_sha256"]) == 64
        assert model["licence"] != "not stated" and model["languages"]
