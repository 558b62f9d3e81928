"""A model folder -> a model that answers: check everything, plan, then read.

Local folders only, and never the code inside them: trust_remote_code is False, and an architecture that neither
transformers nor this app knows is refused. ``.bin`` files are read with weights_only (needs torch 2.6 or newer).
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dbgpt_lite.errors import Cancelled, ModelError, OutOfMemory, UserError
from dbgpt_lite.llm import architecture, pretrained
from dbgpt_lite.llm.adapter import Adapter, base_folder, read_adapter
from dbgpt_lite.llm.assemble import Assembly, assemble, bytes_copied
from dbgpt_lite.llm.batch_engine import BatchEngine
from dbgpt_lite.llm.chat_choice import FormatClues, choose_format
from dbgpt_lite.llm.chat_template import ChatTemplate, Tokenizer, can_constrain
from dbgpt_lite.llm.checkpoint import FACTS_FILE, TOKENIZER_FILES, Checkpoint, read_checkpoint, read_facts
from dbgpt_lite.llm.devices import device_words, free_ram, usable_devices
from dbgpt_lite.llm.engine import LocalEngine
from dbgpt_lite.llm.families import FAMILIES, architecture_name, family
from dbgpt_lite.llm.forecast import number_type
from dbgpt_lite.llm.loaded import LoadedEngine, is_memory
from dbgpt_lite.llm.loading import LoadState, Progress, ignore
from dbgpt_lite.llm.matching import Match, match, wanted_of
from dbgpt_lite.llm.model_json import read_json
from dbgpt_lite.llm.offload_store import check_room
from dbgpt_lite.llm.plan import Plan, plan
from dbgpt_lite.llm.quantize import Quantization, prepare_bitsandbytes, stored_quantization
from dbgpt_lite.llm.renaming import architecture as own_architecture
from dbgpt_lite.llm.shards import stored_tensors
from dbgpt_lite.llm.stepping import compile_ahead, settled, step_model
from dbgpt_lite.messages import EngineInfo
from dbgpt_lite.model_loading import ONE_AT_A_TIME

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load. `dtype`: auto, float32, float16 or bfloat16. `context` 0: the model's own window. `users`: whose
    caches are planned for; 0: one, and more where there is room (batch_room.py).

    `wide_bytes`: GPU memory, of what is left over, that may keep 4-bit weights in 16 bits too; None, the setting's
    default: see batch_room.wide_room.
    `constrained`: obey the grammar of a prompt that has one.
    `max_memory`: {"0": "20GiB", "cpu": "60GiB"}. `chat_format`: used when the folder does not say.
    `cache_dir`: where weights go that a plan keeps on disk; None: the system's place for temporary files.
    `prefix_bytes`: what the beginnings of earlier prompts may take, on a CPU.
    """

    quantization: Quantization = "none"
    dtype: str = "auto"
    device_map: str = "auto"
    max_memory: Mapping[str, str] = field(default_factory=dict)
    context: int = 0
    users: int = 0
    wide_bytes: int | None = 0
    chat_format: str = ""
    constrained: bool = True
    cache_dir: Path | None = None
    prefix_bytes: int = 2**29


def load(
    folder: Path, options: LoadOptions, progress: Progress = ignore, cancel: threading.Event | None = None
) -> LoadedEngine:
    """Load a folder. Raises ModelError, or OutOfMemory before loading when it cannot fit; both say what to do."""
    return prepare(folder, options, progress).load(progress, cancel)


def prepare(
    folder: Path,
    options: LoadOptions,
    progress: Progress = ignore,
    freed: Mapping[str, int] | None = None,
) -> "Prepared":
    """Everything that can be checked before a weight is read: files, names, shapes, memory, disk, tokenizer, chat
    format.

    `freed`: bytes by device that will be free before the load. Raises ModelError and OutOfMemory.
    """
    progress(LoadState("checking"))
    with readable_failures(folder.name), ONE_AT_A_TIME:
        base = base_folder(folder)
        adapter = read_adapter(folder)
        checkpoint = _as_told(read_checkpoint(base), folder, options)
        refuse_foreign(checkpoint)
        stored = stored_quantization(checkpoint.config, base.name)
        if options.quantization in ("int8", "nf4") or stored in ("int8", "nf4", "fp4"):
            prepare_bitsandbytes(options.quantization)
        if checkpoint.format == "gguf":
            pretrained.require_gguf(base.name)
        dtype, place = _plan(checkpoint, options, freed or {})
        template = _template(_tokenizer(folder, checkpoint), checkpoint)
        generation = _generation_config(checkpoint)
        model, fit = fitted(checkpoint, dtype, options.quantization, stored, adapter)
        if fit is None and options.quantization == "int4" and not stored:
            raise ModelError("llm.cannot_quantize", name=base.name, quantization="int4")
        ready = Prepared(
            folder, checkpoint, adapter, options, dtype, place, template, generation, model, fit, stored, bool(freed)
        )
        ready.check_disk(place, (freed or {}).get("disk", 0))
    return ready


@dataclass(frozen=True, slots=True)
class Prepared:
    """A folder that passed all checks. `fit` is None when transformers rebuilds its tensors itself; `generation` is its
    generation_config.json, None without one."""

    folder: Path
    checkpoint: Checkpoint
    adapter: Adapter | None
    options: LoadOptions
    dtype: str
    place: Plan
    template: ChatTemplate
    generation: Any
    model: Any
    fit: Match | None
    stored: str
    planned_ahead: bool

    def load(self, progress: Progress = ignore, cancel: threading.Event | None = None) -> LoadedEngine:
        """Read the weights; once. Raises ModelError, OutOfMemory and Cancelled."""
        place = self.place
        with readable_failures(self.folder.name), ONE_AT_A_TIME:
            if self.planned_ahead:
                _, place = _plan(self.checkpoint, self.options, {})
                self.check_disk(place)
            progress(LoadState("loading"))
            compile_ahead(place, self.checkpoint.config, self.options.users)
            model = self._read(place, progress, cancel or threading.Event())
            self._try(model)
            engine = self._engine(model, place)
        progress(LoadState("ready", 1.0))
        return engine

    def _try(self, model: Any) -> None:
        """Compute one token with quantized layers of a family that is not in the table: some take a layer's weight and
        compute with it themselves. Raises ModelError when that fails."""
        import torch

        quantization = self.stored or self.options.quantization
        if quantization == "none" or architecture_name(self.checkpoint.config) in FAMILIES:
            return
        place = model.get_input_embeddings().weight.device
        ids = torch.zeros(1, 1, dtype=torch.long, device="cpu" if place.type == "meta" else place)
        try:
            with torch.inference_mode():
                model(input_ids=ids, use_cache=False)
        except Exception as error:
            if is_memory(error):
                raise
            # Its text alone: see readable_failures.
            log.warning("%s does not compute with %s: %s", self.folder.name, quantization, str(error))
            raise ModelError("llm.quantized_fails", name=self.folder.name, quantization=quantization) from error

    def check_disk(self, place: Plan, freed: int = 0) -> None:
        """Raise ModelError when the weights that a plan copies to the disk do not fit there. `freed`: bytes that will
        be free as well."""
        copied = bytes_copied(self.model, self.fit.routes if self.fit else None, self._assembly(place))
        if copied:
            check_room(self.options.cache_dir, copied, freed, self.folder.name)

    def _assembly(self, place: Plan) -> Assembly:
        import torch

        dtype, quantization = getattr(torch, self.dtype), self.options.quantization
        return Assembly(
            dtype,
            place.device_map,
            "none" if self.stored else quantization,
            self.stored,
            self.adapter,
            self.options.cache_dir,
        )

    def _read(self, place: Plan, progress: Progress, cancel: threading.Event) -> Any:
        how = self._assembly(place)
        if self.fit is not None:
            return assemble(self.model, self.fit.routes, how, progress, cancel)
        return pretrained.from_pretrained(
            self.checkpoint,
            self.model.config,
            dtype=how.dtype,
            quantization=how.quantization,
            device_map=how.device_map,
            cache=how.cache,
            progress=progress,
            cancel=cancel,
        )

    def _engine(self, model: Any, place: Plan) -> LoadedEngine:
        place = settled(model, place)
        if self.generation is not None:
            model.generation_config = self.generation
        facts, tokenizer = self.checkpoint.facts, self.template.tokenizer
        info = EngineInfo(
            name=self.folder.name,
            kind="local",
            context_length=place.need.context,
            device=", ".join(sorted({device_words(device) for device in _places(model)})),
            quantization=self.stored or self.options.quantization,
            languages=facts.languages,
            sql_prompt=facts.sql_prompt,
            sql_dialect=facts.sql_dialect,
            constrained=self.options.constrained and can_constrain(tokenizer),
        )
        steps = step_model(model, place, self.options.users, self.options.wide_bytes)
        if steps is None:
            return LocalEngine(model, tokenizer, self.template, info, self.options.prefix_bytes)
        return BatchEngine(model, steps, tokenizer, self.template, replace(info, widened=steps.widened))


def _as_told(checkpoint: Checkpoint, folder: Path, options: LoadOptions) -> Checkpoint:
    """With the facts of the folder that is loaded, which an adapter may have of its own, and in them the chat format
    that it or the setting names: tokenizer, positions and template all go by that one."""
    facts = read_facts(folder) if (folder / FACTS_FILE).is_file() else checkpoint.facts
    return replace(checkpoint, facts=replace(facts, chat_format=facts.chat_format or options.chat_format))


def _template(tokenizer: Tokenizer, checkpoint: Checkpoint) -> ChatTemplate:
    """The chat format with the tokenizer, tried out. Raises ModelError for a format that does not exist."""
    row = family(checkpoint.config)
    clues = FormatClues(
        implied=architecture.chat_format(checkpoint),
        template=bool(tokenizer.chat_template),
        tokens=frozenset(str(token) for token in tokenizer.added_tokens_decoder.values()),
    )
    # The setting, too, is in the facts here.
    choice = choose_format(checkpoint.facts.chat_format, "", clues, row)
    template = ChatTemplate(tokenizer, choice.name, row.end_tokens)
    # Its first use: what fails does so now, while another model may still answer.
    _ = template.end_ids
    return template


def _plan(checkpoint: Checkpoint, options: LoadOptions, freed: Mapping[str, int]) -> tuple[str, Plan]:
    """The type to compute in, and a plan that fits. Raises OutOfMemory."""
    devices = usable_devices(options.device_map, options.max_memory, freed)
    dtype = number_type(checkpoint.config, options.dtype, options.quantization, devices)
    place = plan(
        checkpoint,
        dtype=dtype,
        quantization=options.quantization,
        context=options.context,
        devices=devices,
        strategy=options.device_map,
        users=options.users,
    )
    place.check()
    if checkpoint.format == "gguf":
        pretrained.refuse_small_memory(checkpoint, place, free_ram() + freed.get("cpu", 0))
    return dtype, place


def _tokenizer(folder: Path, checkpoint: Checkpoint) -> Tokenizer:
    """The folder's own tokenizer; an adapter may do without one, and a GGUF file holds its own."""
    own = checkpoint.format != "gguf" and any((folder / name).is_file() for name in TOKENIZER_FILES)
    return architecture.tokenizer(replace(checkpoint, folder=folder) if own else checkpoint)


def fitted(
    checkpoint: Checkpoint, dtype: str, quantization: Quantization, stored: str, adapter: Adapter | None
) -> tuple[Any, Match | None]:
    """The empty model and how the files fill it; None when transformers has to rebuild them."""
    import torch

    from dbgpt_lite.llm.experts import separate

    model = architecture.empty_model(architecture.transformers_config(checkpoint), getattr(torch, dtype))
    model.name_or_path = checkpoint.folder.name
    places = stored_tensors(checkpoint)
    rename = None
    # Adapters are merged into what files hold, which of a mixture is one expert at a time.
    if checkpoint.format != "gguf" and (stored or adapter or quantization != "none"):
        rename, places = separate(model, places)
    fit = match(checkpoint.config, places, wanted_of(model), bool(stored), rename)
    if checkpoint.format == "gguf":
        fit.check(checkpoint.folder.name)
    rebuilt = checkpoint.format == "gguf" or (bool(fit.missing and fit.unknown) and pretrained.rebuilds(model))
    if adapter and (rebuilt or stored):
        raise ModelError("llm.adapter_base", name=adapter.folder.name, base=checkpoint.folder.name)
    if rebuilt:
        return model, None
    fit.check(checkpoint.folder.name)
    if adapter:
        adapter.check(fit.routes)
    return model, fit


def _generation_config(checkpoint: Checkpoint) -> Any:
    """generation_config.json, which lists the tokens that end an answer; None without one. Raises ModelError."""
    from transformers import GenerationConfig

    file = checkpoint.folder / "generation_config.json"
    if not file.is_file():
        return None
    ends = read_json(file).get("eos_token_id")
    damaged = ModelError("llm.damaged_file", file=file.name, name=checkpoint.folder.name)
    if not all(isinstance(end, int | None) for end in (ends if isinstance(ends, list) else [ends])):
        raise damaged
    try:
        return GenerationConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    except Exception as error:
        raise damaged from error


def _places(model: Any) -> set[str]:
    placed = getattr(model, "hf_device_map", None) or {"": str(model.device)}
    return {f"cuda:{place}" if isinstance(place, int) else str(place) for place in placed.values()}


def refuse_foreign(checkpoint: Checkpoint) -> None:
    """Refuse what would need the folder's own code."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as known

    name, kind = checkpoint.folder.name, checkpoint.model_type
    if kind not in known and own_architecture(checkpoint.config) is None:
        raise ModelError(
            "llm.needs_code" if "auto_map" in checkpoint.config else "llm.unknown_family", name=name, family=kind
        )


@contextmanager
def readable_failures(name: str) -> Iterator[None]:
    """Errors of the libraries below, as the text a user can act on; the library's own words go to the log."""
    try:
        yield
    except (UserError, Cancelled):
        raise
    except Exception as error:
        if is_memory(error):
            # Its text alone: a log that keeps its records would keep the error's frames, and what they loaded.
            log.warning("loading %s ran out of memory: %s", name, str(error))
            raise OutOfMemory("llm.out_of_memory_loading", name=name) from error
        log.warning("loading %s failed", name, exc_info=error)
        if type(error).__name__ == "UnpicklingError":
            raise ModelError("llm.unsafe_bin", name=name) from error
        raise ModelError("llm.load_failed", name=name, reason=_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    """The first line of a library's message, without the host's paths."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return " ".join(Path(word).name if word.startswith("/") else word for word in line.split())[:200]
