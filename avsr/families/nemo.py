"""Published FastConformer and Conformer CTC models: `.nemo` archives.

Such an archive is a tar, sometimes compressed, of a YAML configuration, torch weights and tokenizer files. It comes
from strangers: member names are only compared and never become paths, sizes are bounded, weights are read without
running their pickle, and a setting that this package does not have is refused by its name.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import yaml

from avsr.decoding.tokenizer import SentencePieceTokenizer
from avsr.errors import ModelError
from avsr.families.own.config import AudioEncoderConfig, ModelConfig
from avsr.families.torch_file import MAX_WEIGHTS_BYTES, plain_tensors, read_torch_file, shown
from avsr.grid import HOP_SAMPLES, SAMPLE_RATE_HZ
from avsr.nn.conformer import ConformerShape
from avsr.nn.masks import AttentionContext
from avsr.sound.mel import FFT_SAMPLES, LOG_GUARD, PREEMPHASIS, WINDOW_SAMPLES, MelConfig

if TYPE_CHECKING:
    import torch

    from avsr.families.own.network import Network

SUFFIX = ".nemo"
CONFIG_MEMBER = "model_config.yaml"
WEIGHTS_MEMBER = "model_weights.ckpt"
MAX_CONFIG_BYTES = 8 << 20
MAX_TOKENIZER_BYTES = 64 << 20
MAX_HEADER_BYTES = 1 << 20
MAX_MEMBERS = 1000
MAX_FILTER_ERROR = 1e-6

# Classes with a CTC head on word pieces, and the sections that hold the head's settings.
HEADS = {
    "EncDecCTCModelBPE": ("decoder",),
    "EncDecHybridRNNTCTCBPEModel": ("aux_ctc", "decoder"),
}
# In a hybrid these belong to the transducer; the features are computed anew.
UNUSED_WEIGHTS = {
    "EncDecCTCModelBPE": ("preprocessor.",),
    "EncDecHybridRNNTCTCBPEModel": ("preprocessor.", "decoder.", "joint."),
}

BLOCK_PARTS = {
    "norm_first": "norm_feed_forward1",
    "feed_forward_first.expand": "feed_forward1.linear1",
    "feed_forward_first.project": "feed_forward1.linear2",
    "norm_attention": "norm_self_att",
    "attention.to_query": "self_attn.linear_q",
    "attention.to_key": "self_attn.linear_k",
    "attention.to_value": "self_attn.linear_v",
    "attention.to_output": "self_attn.linear_out",
    "attention.to_position": "self_attn.linear_pos",
    "attention.to_global_query": "self_attn.global_q",
    "attention.to_global_key": "self_attn.global_k",
    "attention.to_global_value": "self_attn.global_v",
    "attention": "self_attn",
    "norm_convolution": "norm_conv",
    "convolution.expand": "conv.pointwise_conv1",
    "convolution.depthwise": "conv.depthwise_conv",
    "convolution.norm": "conv.batch_norm",  # also when it is a layer norm
    "convolution.project": "conv.pointwise_conv2",
    "norm_second": "norm_feed_forward2",
    "feed_forward_second.expand": "feed_forward2.linear1",
    "feed_forward_second.project": "feed_forward2.linear2",
    "norm_output": "norm_out",
}
ATTENTION_BIASES = {"bias_u": "pos_bias_u", "bias_v": "pos_bias_v"}


def load_nemo(path: str | os.PathLike[str]) -> tuple[Network, SentencePieceTokenizer]:
    """The network (float32, in evaluation mode, on the CPU) and tokenizer of a `.nemo` archive.

    Of a model with both a transducer and a CTC head the CTC head is taken. Raises ModelError when the archive is
    damaged, too large, or holds a model with anything that would change its results and is not supported.
    """
    import torch

    from avsr.families.own.network import Network

    path = Path(path)
    with _Archive(path) as archive:
        content = _read_yaml(archive.read(CONFIG_MEMBER, MAX_CONFIG_BYTES), path)
        tokenizer = _read_tokenizer(archive, content, path)
        kind = _target(content, path)
        config = read_nemo_config(content, path, len(tokenizer))
        with torch.device("meta"):  # sizes come from the archive: nothing is allocated before the weights agree
            network = Network(config)
        with archive.as_file(WEIGHTS_MEMBER, MAX_WEIGHTS_BYTES) as weights_path:
            what = f"{path}: {WEIGHTS_MEMBER}"
            weights = plain_tensors(read_torch_file(weights_path, what), what)
            _check_filters(weights, config.mel, path)
            converted = _convert(weights, network, kind, path)
    network.load_state_dict(converted, assign=True)
    return network.eval(), tokenizer


def model_card(path: str | os.PathLike[str], network: Network) -> str:
    """The README.md of a checkpoint that was made from an archive."""
    config = network.config
    choices = ", ".join(str((context.left, context.right)) for context in config.audio_encoder.attention_choices)
    return (
        f"# {config.name}\n\n"
        f"Converted from `{Path(path).name}` (a NeMo checkpoint); its license and model card apply.\n\n"
        f"- hears only; {config.vocabulary_size} word pieces; one frame every {config.frame_ms} ms\n"
        f"- {sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters\n"
        + (f"- further attention contexts (left, right) in frames: {choices}\n" if choices else "")
    )


class _Archive:
    """The members of a tar by base name, with bounds. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members: dict[str, tarfile.TarInfo] = {}
        try:
            self._file: BinaryIO = open(path, "rb")
        except OSError as error:
            raise ModelError(f"{path}: cannot be read", got=error.strerror) from None
        try:
            if self._file.read(2) == b"\x1f\x8b":
                self._file = _decompressed(self._file, path)
            self._list()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def _list(self) -> None:
        self._file.seek(0)
        try:
            with tarfile.open(fileobj=_HeaderReader(self._file, self._path), mode="r:") as tar:
                for count, member in enumerate(tar):
                    if count >= MAX_MEMBERS or member.size < 0:
                        raise ModelError(
                            f"{self._path}: not a model archive", expected=f"{MAX_MEMBERS} members at most"
                        )
                    if member.isreg() and not member.issparse():
                        name = member.name.rpartition("/")[2]
                        if name in self._members:
                            raise ModelError(f"{self._path}: two members are called {name!r}", expected="one")
                        self._members[name] = member
        except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
            raise ModelError(
                f"{self._path}: not a model archive", got=error, expected="a tar, as .nemo files are"
            ) from None

    def names(self) -> set[str]:
        return set(self._members)

    def _start(self, name: str, limit: int) -> int:
        member = self._members.get(name)
        if member is None:
            raise ModelError(f"{self._path}: {name} is missing", remedy="check that this is a .nemo model")
        if member.size > limit:
            raise ModelError(
                f"{self._path}: {name} is too large", got=f"{member.size} bytes", expected=f"{limit} at most"
            )
        self._file.seek(member.offset_data)
        return member.size

    def read(self, name: str, limit: int) -> bytes:
        """One member. Raises ModelError when it is missing, cut off or larger than the limit in bytes."""
        size = self._start(name, limit)
        data = self._file.read(size)
        if len(data) < size:
            raise ModelError(f"{self._path}: {name} is cut off", remedy="download the model again")
        return data

    @contextmanager
    def as_file(self, name: str, limit: int) -> Iterator[Path]:
        """One member as a file that lives as long as the context."""
        left = self._start(name, limit)
        with tempfile.TemporaryDirectory(prefix="avsr-") as folder:
            copy = Path(folder, "member")
            with copy.open("wb") as file:
                while left:
                    block = self._file.read(min(left, 1 << 20))
                    if not block:
                        raise ModelError(f"{self._path}: {name} is cut off", remedy="download the model again")
                    file.write(block)
                    left -= len(block)
            yield copy


class _HeaderReader(io.RawIOBase):
    """A file from which tarfile reads headers only: some headers say themselves how long they are."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise ModelError(f"{self._path}: not a model archive", got=f"a tar header of {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _decompressed(file: BinaryIO, path: Path) -> BinaryIO:
    """The content of a gzip file as a temporary one; bounded, since a small file can hold a very large one."""
    limit = MAX_WEIGHTS_BYTES + (1 << 30)
    with file:
        file.seek(0)
        plain = tempfile.TemporaryFile(prefix="avsr-")  # noqa: SIM115 - the caller closes it
        try:
            with gzip.open(file) as source:
                while block := source.read(1 << 20):
                    plain.write(block)
                    if plain.tell() > limit:
                        raise ModelError(f"{path}: too large when decompressed", expected=f"{limit} bytes at most")
        except (OSError, EOFError, zlib.error) as error:
            plain.close()
            raise ModelError(f"{path}: cannot be decompressed", got=error, remedy="download the model again") from None
        except BaseException:
            plain.close()
            raise
    return plain


def _read_yaml(data: bytes, path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(data.decode("utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: {CONFIG_MEMBER} is not valid YAML", got=shown(error)) from None
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict):
        raise ModelError(f"{path}: {CONFIG_MEMBER}", got=type(content).__name__, expected="key: value lines")
    return content


def _read_tokenizer(archive: _Archive, content: Mapping[str, Any], path: Path) -> SentencePieceTokenizer:
    section = _Section(content, path).section("tokenizer")
    kind = section.take("type", None)
    if kind != "bpe":
        raise section.refuse("type", kind, "bpe (SentencePiece)")
    reference = section.take("model_path", None)
    if not isinstance(reference, str):
        raise section.refuse("model_path", reference, "a SentencePiece model")
    name = reference.removeprefix("nemo:").rpartition("/")[2]
    return SentencePieceTokenizer(archive.read(name, MAX_TOKENIZER_BYTES))


class _Section:
    """A part of the configuration whose settings are taken one by one; what is left in the end is not supported."""

    def __init__(self, content: Mapping[str, Any], path: Path, name: str = "") -> None:
        self._content, self._path, self._name = dict(content), path, name

    def refuse(self, key: str, got: object, expected: object = None) -> ModelError:
        return ModelError(f"{self._path}: {self._name}{key} is not supported", got=shown(got), expected=expected)

    def take(self, key: str, default: Any) -> Any:
        return self._content.pop(key, default)

    def section(self, key: str) -> _Section:
        value = self.take(key, None)
        if not isinstance(value, Mapping):
            raise self.refuse(key, value, "a section")
        return _Section(value, self._path, f"{self._name}{key}.")

    def integer(self, key: str, default: int | None, low: int, high: int) -> int:
        value = self.take(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.refuse(key, value, f"{low} to {high}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, value, "true or false")
        return value

    def choice(self, key: str, default: Any, choices: Mapping[Any, Any]) -> Any:
        """The meaning of one of a few values."""
        value = self.take(key, default)
        for known, meaning in choices.items():
            if value == known and isinstance(value, bool) == isinstance(known, bool):
                return meaning
        raise self.refuse(key, value, " or ".join(str(known) for known in choices))

    def class_name(self, expected: str) -> None:
        value = self.take("_target_", expected)
        if not isinstance(value, str) or value.rpartition(".")[2] != expected:
            raise self.refuse("_target_", value, expected)

    def ignore(self, *keys: str) -> None:
        for key in keys:
            self._content.pop(key, None)

    def finish(self) -> None:
        for key, value in self._content.items():
            raise self.refuse(str(key), value)


def _target(content: Mapping[str, Any], path: Path) -> str:
    target = content.get("target")
    kind = target.rpartition(".")[2] if isinstance(target, str) else ""
    if kind not in HEADS:
        raise _Section(content, path).refuse("target", target, " or ".join(HEADS))
    return kind


def read_nemo_config(content: Mapping[str, Any], path: Path, vocabulary_size: int) -> ModelConfig:
    """The archive's configuration as ours. Raises ModelError for what is not supported, naming the setting."""
    root = _Section(content, path)
    if root.take("sample_rate", SAMPLE_RATE_HZ) != SAMPLE_RATE_HZ:
        raise root.refuse("sample_rate", content["sample_rate"], SAMPLE_RATE_HZ)
    mel = _mel_config(root.section("preprocessor"))
    encoder = _encoder_config(root.section("encoder"), mel)
    head = root
    for name in HEADS[_target(content, path)]:
        head = head.section(name)
    units = head.integer("num_classes", None, 1, 1 << 20)
    if units != vocabulary_size:
        raise head.refuse("num_classes", units, f"{vocabulary_size}, the size of the tokenizer")
    if head.take("feat_in", None) not in (None, encoder.conformer.width):
        raise head.refuse("feat_in", "another width", encoder.conformer.width)
    head.class_name("ConvASRDecoder")
    head.ignore("vocabulary", "init_mode")
    head.finish()
    try:
        return ModelConfig(name=path.stem, vocabulary_size=vocabulary_size, mel=mel, audio_encoder=encoder)
    except ValueError as error:
        raise ModelError(f"{path}: not supported", got=error) from None


def _mel_config(section: _Section) -> MelConfig:
    section.class_name("AudioToMelSpectrogramPreprocessor")
    for key, default, expected in (
        ("sample_rate", SAMPLE_RATE_HZ, (SAMPLE_RATE_HZ,)),
        ("window_size", 0.02, (WINDOW_SAMPLES / SAMPLE_RATE_HZ,)),
        ("window_stride", 0.01, (HOP_SAMPLES / SAMPLE_RATE_HZ,)),
        ("n_window_size", None, (None, WINDOW_SAMPLES)),
        ("n_window_stride", None, (None, HOP_SAMPLES)),
        ("window", "hann", ("hann",)),
        ("n_fft", None, (FFT_SAMPLES, None)),
        ("preemph", PREEMPHASIS, (PREEMPHASIS,)),
        ("lowfreq", 0, (0,)),
        ("highfreq", None, (None, SAMPLE_RATE_HZ / 2)),
        ("log", True, (True,)),
        ("log_zero_guard_type", "add", ("add",)),
        ("log_zero_guard_value", LOG_GUARD, (LOG_GUARD,)),
        ("mag_power", 2.0, (2.0,)),
        ("mel_norm", "slaney", ("slaney",)),
        ("frame_splicing", 1, (1,)),
        ("exact_pad", False, (False,)),
        ("stft_exact_pad", False, (False,)),
        ("use_torchaudio", False, (False,)),
    ):
        section.choice(key, default, {value: value for value in expected})
    # Dither is for training. Frames past the end are masked everywhere, however many there are and whatever they hold.
    section.ignore("dither", "pad_to", "pad_value", "nb_augmentation_prob", "nb_max_freq", "rng", "stft_conv")
    mel = MelConfig(
        n_mels=section.integer("features", 64, 1, 256),
        normalize=section.choice(
            "normalize", "per_feature", {"per_feature": "per_feature", "NA": "none", None: "none"}
        ),
    )
    section.finish()
    return mel


def _encoder_config(section: _Section, mel: MelConfig) -> AudioEncoderConfig:
    section.class_name("ConformerEncoder")
    if section.integer("feat_in", mel.n_mels, 1, 256) != mel.n_mels:
        raise section.refuse("feat_in", "another number than features", mel.n_mels)
    width = section.integer("d_model", None, 1, 8192)
    section.choice("feat_out", -1, {-1: None, 0: None, None: None, width: None})
    heads = section.integer("n_heads", 4, 1, 128)
    if width % heads or width % 2:
        raise section.refuse("n_heads", heads, f"a divisor of {width}")
    kernel = section.integer("conv_kernel_size", 31, 1, 999)
    channels = section.take("subsampling_conv_channels", -1)
    if not isinstance(channels, int) or isinstance(channels, bool) or not (channels == -1 or 1 <= channels <= 8192):
        raise section.refuse("subsampling_conv_channels", channels, "-1 or 1 to 8192")
    contexts = _contexts(section)
    shape = ConformerShape(
        width=width,
        layers=section.integer("n_layers", None, 1, 256),
        heads=heads,
        expansion=section.integer("ff_expansion_factor", 4, 1, 64),
        kernel=kernel,
        **_convolution_context(section, kernel),
        conv_norm=section.choice("conv_norm_type", "batch_norm", {"batch_norm": "batch", "layer_norm": "layer"}),
        use_bias=section.flag("use_bias", True),
        global_projections=section.flag("global_attn_separate", False) and contexts[0].global_tokens > 0,
    )
    config = AudioEncoderConfig(
        conformer=shape,
        subsampling=section.choice("subsampling_factor", 4, {2: 2, 4: 4, 8: 8}),
        subsampling_channels=width if channels == -1 else channels,
        subsampling_kind=section.choice("subsampling", "striding", {"dw_striding": "depthwise", "striding": "plain"}),
        subsampling_causal=section.flag("causal_downsampling", False),
        attention=contexts[0],
        attention_choices=contexts[1:],
        scale_input=section.flag("xscaling", True),
    )
    section.choice("reduction", None, {None: None})
    section.choice("conv_dual_mode", False, {False: False})
    section.ignore(
        "att_context_probs",  # how often each context was trained
        "untie_biases",  # the biases are stored in each layer either way
        "pos_emb_max_len",  # positions are computed as far as they are needed
        "reduction_position",
        "reduction_factor",
        "subsampling_conv_chunking_factor",
        "use_pytorch_sdpa",
        "use_pytorch_sdpa_backends",
        "sync_max_audio_length",
        "dropout",
        "dropout_pre_encoder",
        "dropout_emb",
        "dropout_att",
        "stochastic_depth_drop_prob",
        "stochastic_depth_mode",
        "stochastic_depth_start_layer",
    )
    section.finish()
    return config


def _contexts(section: _Section) -> tuple[AttentionContext, ...]:
    """The attention contexts, the default one first."""
    model = section.take("self_attention_model", "rel_pos")
    if model not in ("rel_pos", "rel_pos_local_attn"):
        raise section.refuse("self_attention_model", model, "rel_pos or rel_pos_local_attn")
    style = section.choice("att_context_style", "regular", {"regular": "regular", "chunked_limited": "chunked"})
    tokens = section.integer("global_tokens", 0, 0, 1000)
    spacing = section.integer("global_tokens_spacing", 1, 1, 1_000_000)
    extra = {}
    if model == "rel_pos_local_attn":
        if style != "regular":
            raise section.refuse("att_context_style", "chunked_limited", "regular with rel_pos_local_attn")
        style = "local"
        extra = {"global_tokens": tokens, "global_spacing": spacing if tokens else 1}
    value = section.take("att_context_size", None)
    sizes = [-1, -1] if value is None else value
    if not isinstance(sizes, list) or not 1 <= len(sizes) <= 100:
        raise section.refuse("att_context_size", value, "[left, right], or a list of such")
    contexts = []
    for size in sizes if isinstance(sizes[0], list) else [sizes]:
        limits_are_whole = isinstance(size, list) and len(size) == 2 and {type(limit) for limit in size} == {int}
        if not limits_are_whole or not -1 <= min(size) <= max(size) <= 100_000:
            raise section.refuse("att_context_size", size, "[left, right], each -1 to 100000")
        try:
            contexts.append(AttentionContext(style=style, left=size[0], right=size[1], **extra))
        except ValueError as error:
            raise section.refuse("att_context_size", size, error) from None
    return tuple(contexts)


def _convolution_context(section: _Section, kernel: int) -> dict[str, Any]:
    value = section.take("conv_context_size", None)
    if isinstance(value, list) and len(value) == 2 and {type(limit) for limit in value} == {int}:
        left, right = value
        if left >= 0 <= right and left + right + 1 == kernel:
            if right == 0:
                return {"conv_context": "causal"}
            return {"conv_look_ahead": None if left == right else right}
    elif value == "causal":
        return {"conv_context": "causal"}
    elif value is None and kernel % 2:
        return {}
    raise section.refuse("conv_context_size", value, f"null, causal, or [left, right] that fit a kernel of {kernel}")


def _check_filters(weights: Mapping[str, torch.Tensor], mel: MelConfig, path: Path) -> None:
    """The archive holds its mel filters: the surest sign that features are what the model was trained on."""
    from avsr.sound.mel import LogMel

    ours = LogMel(mel)
    for name, expected in (("fb", ours.filters_MF[None]), ("window", ours.window)):
        stored = weights.get(f"preprocessor.featurizer.{name}")
        if stored is None:
            continue
        if stored.shape != expected.shape or float((stored.float() - expected).abs().max()) > MAX_FILTER_ERROR:
            raise ModelError(f"{path}: preprocessor.featurizer.{name} is not supported", got="other values than ours")


def _convert(weights: Mapping[str, torch.Tensor], network: Network, kind: str, path: Path) -> dict[str, torch.Tensor]:
    """The weights by our names, copied; every one of the network's is there and none of the archive's is left over."""
    converted, used = {}, set()
    for name, ours in network.state_dict().items():
        source = _source_name(name, network.config, kind)
        if source not in weights:
            raise ModelError(f"{path}: weight {source} is missing")
        used.add(source)
        tensor = weights[source]
        if tensor.ndim == ours.ndim + 1 and tensor.shape[-1] == 1:  # a convolution over one frame is a linear layer
            tensor = tensor.squeeze(-1)
        if tensor.shape != ours.shape:
            raise ModelError(
                f"{path}: weight {source} has another shape", got=tuple(tensor.shape), expected=tuple(ours.shape)
            )
        converted[name] = tensor.to(ours.dtype, copy=True).contiguous()
    for source in weights:
        if source not in used and not source.startswith(UNUSED_WEIGHTS[kind]):
            raise ModelError(f"{path}: weight {shown(source)} is not supported")
    return converted


def _source_name(name: str, config: ModelConfig, kind: str) -> str:
    """What the archive calls one of our weights."""
    part, _, last = name.rpartition(".")
    if part == "audio_head.project":
        head = "ctc_decoder" if len(HEADS[kind]) > 1 else "decoder"
        return f"{head}.decoder_layers.0.{last}"
    if part == "audio_encoder.subsampling.project":
        return f"encoder.pre_encode.out.{last}"
    words = part.split(".")
    if words[1] == "subsampling":
        stage = int(words[3])
        if config.audio_encoder.subsampling_kind == "plain":
            index = 2 * stage
        else:  # a convolution and a ReLU, then depthwise, pointwise and ReLU by stage
            index = 3 * stage - 1 + int(words[4]) if stage else 0
        return f"encoder.pre_encode.conv.{index}.{last}"
    block, inner = words[3], ".".join(words[4:])
    return f"encoder.layers.{block}.{BLOCK_PARTS[inner]}.{ATTENTION_BIASES.get(last, last)}"
