"""Opens Whisper models in the form of CTranslate2: a folder with model.bin, config.json and tokenizer.json."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsr.decoding.search import Search
from avsr.engine import Card, Model
from avsr.errors import ConfigError, ModelError
from avsr.families.whisper.model_file import check_model_file, check_numbers
from avsr.families.whisper.network import Sizes, WrongNetworkError, check_settings
from avsr.files import sha256_of
from avsr.untrusted.files import open_file, read_file
from avsr.untrusted.settings import parse_json
from avsr.untrusted.values import shown

if TYPE_CHECKING:
    from avsr.decoding.redecoding import RedecodingSearch
    from avsr.families.whisper.stream import WhisperStream
    from avsr.families.whisper.tokens import Tokens

MODEL_NAME, CONFIG_NAME, TOKENIZER_NAME = "model.bin", "config.json", "tokenizer.json"
OTHER_NAMES = ("vocabulary.json", "vocabulary.txt", "preprocessor_config.json")
"""Further files that CTranslate2 opens if they are there."""
MAX_OTHER_BYTES = 16 << 20
MAX_CONFIG_BYTES = 256 << 10
MOST_THREADS = 8
"""More threads do not make models of this size faster."""


def owns(target: str) -> bool:
    """Whether `target` is a folder of a Whisper model."""
    return all(os.path.isfile(os.path.join(target, name)) for name in (MODEL_NAME, CONFIG_NAME, TOKENIZER_NAME))


def read_card(target: str) -> Card:
    """The card of a model, without its weights. Raises ModelError."""
    return _card(target, *_languages(Path(target)))


def open_model(target: str, device: str, dtype: str) -> Model:
    """The model in a folder. Raises ModelError, or ConfigError for a device or precision that is not there."""
    ctranslate2 = _import_ctranslate2()
    from avsr.families.whisper.engine import WhisperEngine
    from avsr.families.whisper.texts import WhisperTexts

    folder = Path(target)
    tokens = _tokens(folder)
    numbers, sizes = check_model_file(folder / MODEL_NAME)
    _check_other_files(folder, sizes)
    if tokens.count > sizes.tokens:
        raise ModelError(
            f"{target}: {MODEL_NAME} and {TOKENIZER_NAME} are of different models",
            got=f"{sizes.tokens} and {tokens.count} tokens",
        )
    kind, _, index = _device(ctranslate2, device).partition(":")
    compute = {"auto": "int8" if kind == "cpu" else "float16"}.get(dtype, dtype)
    supported = ctranslate2.get_supported_compute_types(kind)
    if compute not in supported:
        raise ConfigError(f"{kind} cannot compute in {compute}", expected=", ".join(sorted(supported)))
    # The runtime reads the file too, and longer; beside it the look at the numbers takes no time.
    with ThreadPoolExecutor(1) as pool:
        are_finite = pool.submit(check_numbers, folder / MODEL_NAME, numbers)
        try:
            model = ctranslate2.models.Whisper(
                target, device=kind, device_index=int(index or 0), compute_type=compute, intra_threads=threads()
            )
        except MemoryError:
            raise
        except Exception as error:  # a missing tensor is an IndexError, other faults have other kinds
            raise ModelError(
                f"{target}: cannot be read", got=shown(error), expected="a Whisper model of CTranslate2"
            ) from error
        are_finite.result()
    if model.is_multilingual != tokens.is_multilingual:
        raise ModelError(f"{target}: {MODEL_NAME} and {TOKENIZER_NAME} are of different models")
    card = _card(target, tokens.languages, tokens.is_multilingual)
    engine = WhisperEngine(model, tokens, sizes.tokens)

    def stream(
        chunk_ms: int, look_ahead_ms: int, *, lips: bool, search: Search
    ) -> tuple[WhisperStream, RedecodingSearch]:
        from avsr.families.whisper.stream import WhisperStream, redecoding_search

        return WhisperStream(card.name, chunk_ms, look_ahead_ms), redecoding_search(engine, search, look_ahead_ms)

    return Model(
        card=card,
        engine=engine,
        stream=stream,
        texts=WhisperTexts(engine),
        identity=lambda: {"weights_sha256": sha256_of(folder / MODEL_NAME), "compute": compute},
        device=f"{kind}:{index or 0}" if kind == "cuda" else kind,
    )


def _check_other_files(folder: Path, sizes: Sizes) -> None:
    """Raises ModelError for a file that CTranslate2 would wait for, fill the memory with, or not survive."""
    config = folder / CONFIG_NAME
    try:
        check_settings(parse_json(read_file(config, MAX_CONFIG_BYTES), str(config), ModelError), sizes)
    except WrongNetworkError as error:
        raise ModelError(f"{config}: wrong setting", got=error, remedy="download the model again") from None
    for path in (folder / name for name in OTHER_NAMES):
        if os.path.lexists(path):
            open_file(path, MAX_OTHER_BYTES).close()


def threads() -> int:
    """The threads of one model: as OMP_NUM_THREADS says, else one a core, at most `MOST_THREADS`."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return int(limit) if limit.isdigit() and int(limit) else min(MOST_THREADS, len(os.sched_getaffinity(0)))


def _card(target: str, languages: tuple[str, ...], is_multilingual: bool) -> Card:
    from avsr.families.whisper.engine import USUAL_BEAM, WINDOW_S
    from avsr.families.whisper.stream import CHUNKS_MS

    return Card(
        name=Path(os.path.abspath(target)).name,
        family="whisper",
        modalities=("a",),
        languages=languages,
        window_s=WINDOW_S,
        margin_s=0.0,
        chunks_ms=CHUNKS_MS,
        searches=("beam", "greedy"),
        beam=USUAL_BEAM,
        tasks=("transcribe", "translate") if is_multilingual else ("transcribe",),
        cut_at_pauses=True,
        # A sixth less computing than one by one. More would gain little, and keep the engine waiting for the faces.
        batch=2,
    )


def _languages(folder: Path) -> tuple[tuple[str, ...], bool]:
    tokens = _tokens(folder)
    return tokens.languages, tokens.is_multilingual


def _tokens(folder: Path) -> Tokens:
    _import_ctranslate2()
    from avsr.families.whisper.tokens import Tokens

    return Tokens(folder / TOKENIZER_NAME)


def _import_ctranslate2() -> Any:
    """The package. Raises ModelError with the remedy if it, or the one for tokens, is not installed."""
    try:
        import ctranslate2
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "Whisper models need the extra whisper", got=error, remedy="pip install '.[whisper]'"
        ) from None
    return ctranslate2


def _device(ctranslate2: Any, device: str) -> str:
    """The device that a text names. Raises ConfigError for a GPU that is not there."""
    count = ctranslate2.get_cuda_device_count()
    if device == "auto":
        return "cuda" if count else "cpu"
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= count:
        raise ConfigError(f"device {device} is not there", got=f"{count} GPUs", remedy="use device auto or cpu")
    return device
