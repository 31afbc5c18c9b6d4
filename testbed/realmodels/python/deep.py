"""Have torch and what is built on it save models in the ways that people do.

    python deep.py DIR

Weights are random and models tiny; nothing is fetched. A way that is not there in
the installed version is said and left out.
"""
import argparse
import collections
import datetime
import pathlib
import sys
import warnings

import numpy as np
import torch
from torch import nn

warnings.filterwarnings("ignore")
OUT = pathlib.Path(sys.argv[1])
OUT.mkdir(parents=True, exist_ok=True)
written, left_out = 0, []


def attempt(name, write):
    """Write one file or folder; what cannot be written is left out."""
    global written
    try:
        write(OUT / name)
        written += 1
    except Exception as e:
        left_out.append(f"{name}: {type(e).__name__}: {e}")


def both(name, value):
    """Save in today's format and in the one before zip archives."""
    attempt(name + ".pt", lambda p: torch.save(value, p))
    attempt(name + ".legacy.pt", lambda p: torch.save(value, p, _use_new_zipfile_serialization=False))


MODULES = {
    "linear": nn.Linear(4, 4),
    "conv": nn.Sequential(collections.OrderedDict(c=nn.Conv2d(3, 4, 3), b=nn.BatchNorm2d(4), r=nn.ReLU(inplace=True), p=nn.AdaptiveAvgPool2d(1), f=nn.Flatten(), d=nn.Dropout(0.1))),
    "lstm": nn.LSTM(4, 4, 2),
    "gru": nn.GRU(4, 4),
    "embedding": nn.Embedding(10, 4),
    "attention": nn.MultiheadAttention(4, 2),
    "encoder": nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 2),
    "transformer": nn.Transformer(4, 2, 1, 1, 8),
    "list": nn.ModuleList([nn.Linear(2, 2), nn.GELU(), nn.LayerNorm(2), nn.SiLU(), nn.Softmax(1), nn.Identity()]),
    "dict": nn.ModuleDict({"a": nn.ConvTranspose1d(2, 2, 2), "b": nn.GroupNorm(1, 2), "c": nn.PReLU(), "d": nn.Upsample(scale_factor=2)}),
    "normed": nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
    "parameters": nn.ParameterDict({"a": nn.Parameter(torch.ones(2))}),
}


def torch_modules():
    for name, m in MODULES.items():
        both(f"torch_module_{name}", m)
        both(f"torch_state_{name}", m.state_dict())
        both(f"torch_half_{name}", {k: v.half() for k, v in m.state_dict().items()})


def torch_values():
    for name in "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128 float8_e4m3fn float8_e5m2 uint16".split():
        both(f"torch_tensor_{name}", torch.zeros(3, dtype=getattr(torch, name)))
    shared = torch.arange(10.0)
    both("torch_values", [shared, shared[2:5], shared.t(), nn.Parameter(torch.ones(2)), torch.Size([1, 2]), torch.device("cpu"), torch.float32,
                          torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csr(), torch.empty(0), torch.tensor(1.5, requires_grad=True),
                          torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), None, 1, "a", (1, 2), {3}, slice(1)])
    both("torch_generator", {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": __import__("random").getstate()})
    both("torch_nested", collections.OrderedDict(a=[{"b": torch.ones(1)}], c=collections.defaultdict(list)))


def torch_training():
    for cls in "SGD Adam AdamW Adagrad Adadelta Adamax RMSprop NAdam RAdam ASGD Rprop LBFGS".split():
        m = nn.Linear(4, 1)
        o = getattr(torch.optim, cls)(m.parameters(), lr=0.1)

        def closure():
            o.zero_grad()
            loss = m(torch.ones(2, 4)).sum()
            loss.backward()
            return loss
        o.step(closure)
        s = torch.optim.lr_scheduler.StepLR(o, 1)
        both(f"torch_checkpoint_{cls}", {"model": m.state_dict(), "optimizer": o.state_dict(), "scheduler": s.state_dict(), "epoch": 3, "best": 0.5,
                                         "args": argparse.Namespace(lr=0.1, name="x", betas=(0.9, 0.99), out=pathlib.PosixPath("runs")), "date": datetime.datetime(2026, 1, 1)})
    both("torch_optimizer_object", o)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x))).mean((2, 3))[:, :2].to(torch.float16)


def torch_graphs():
    block, x = Block().eval(), torch.rand(1, 3, 8, 8)
    attempt("torchscript_traced.pt", lambda p: torch.jit.trace(block, x).save(p))
    attempt("torchscript_scripted.pt", lambda p: torch.jit.script(block).save(p))
    attempt("torchscript_frozen.pt", lambda p: torch.jit.freeze(torch.jit.script(block)).save(p))
    for name in "linear conv lstm encoder".split():
        attempt(f"torchscript_{name}.pt", lambda p: torch.jit.script(MODULES[name]).save(p))
    attempt("torchexport_block.pt2", lambda p: torch.export.save(torch.export.export(block, (x,)), p))


def hugging_face():
    import safetensors.torch
    import transformers as t
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50}
    configs = {
        "bert": t.BertConfig(**tiny), "gpt2": t.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=50), "llama": t.LlamaConfig(num_key_value_heads=2, **tiny),
        "t5": t.T5Config(d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=50), "vit": t.ViTConfig(image_size=8, patch_size=4, **{k: v for k, v in tiny.items() if k != "vocab_size"}),
    }
    for name, config in configs.items():
        m = t.AutoModel.from_config(config)
        attempt(f"transformers_{name}_model.bin", lambda p: torch.save(m.state_dict(), p))
        attempt(f"transformers_{name}_module.pt", lambda p: torch.save(m, p))
        attempt(f"transformers_{name}.safetensors", lambda p: safetensors.torch.save_model(m, str(p)))
        attempt(f"transformers_{name}_config.json", lambda p: p.write_text(m.config.to_json_string()))
    attempt("transformers_training_args.bin", lambda p: torch.save(t.TrainingArguments(output_dir="runs", use_cpu=True), p))
    attempt("transformers_trainer_state.json", lambda p: t.TrainerState().save_to_json(str(p)))


def sentence_transformers():
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models
    m = SentenceTransformer(modules=[models.WordEmbeddings(models.tokenizer.WhitespaceTokenizer(["a", "b"]), np.zeros((2, 4), dtype="float32")),
                                     models.Pooling(4), models.Dense(4, 2), models.Normalize()], device="cpu")
    attempt("sentence-transformers_module.pt", lambda p: torch.save(m, p))
    attempt("sentence-transformers_state.pt", lambda p: torch.save(m.state_dict(), p))


def ultralytics():
    from ultralytics import YOLO
    for name in "yolov8n yolov8n-seg yolov8n-cls yolov8n-pose yolo11n".split():
        m = YOLO(name + ".yaml").model.half()
        value = {"epoch": -1, "best_fitness": None, "model": m, "ema": None, "updates": None, "optimizer": None, "train_args": {"imgsz": 640, "lr0": 0.01},
                 "train_metrics": {"fitness": 0.1}, "train_results": {"epoch": [1]}, "date": datetime.datetime.now().isoformat(), "version": "8", "license": "AGPL-3.0"}
        attempt(f"ultralytics_{name}.pt", lambda p: torch.save(value, p))


def lightning():
    import lightning as pl
    from omegaconf import OmegaConf

    class Net(pl.LightningModule):
        def __init__(self, width=4):
            super().__init__()
            self.save_hyperparameters()
            self.l = nn.Linear(width, 1)

        def training_step(self, batch, _):
            return self.l(batch).sum()

        def configure_optimizers(self):
            o = torch.optim.AdamW(self.parameters())
            return [o], [torch.optim.lr_scheduler.CosineAnnealingLR(o, 2)]
    trainer = pl.Trainer(max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    trainer.fit(Net(), torch.utils.data.DataLoader(torch.rand(4, 4)))
    attempt("lightning_trained.ckpt", lambda p: trainer.save_checkpoint(p))
    attempt("omegaconf_checkpoint.ckpt", lambda p: torch.save({"state_dict": {}, "hyper_parameters": OmegaConf.create({"lr": 0.1, "layers": [1, 2], "name": "${lr}"})}, p))


OWN_CONFIG = """from transformers import PretrainedConfig


class OwnConfig(PretrainedConfig):
    model_type = "own"

    def __init__(self, width=4, **kwargs):
        self.width = width
        super().__init__(**kwargs)
"""

OWN_MODEL = """from torch import nn
from transformers import PreTrainedModel

from .configuration_own import OwnConfig


class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.l = nn.Linear(config.width, config.width)
        self.post_init()

    def forward(self, x):
        return self.l(x)
"""


def repositories():
    """Write folders as they are uploaded: settings, tokenizers, weights and code."""
    import importlib
    import tempfile
    import transformers as t
    tiny = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 64, "max_position_embeddings": 32}

    def tokenizer(p):
        p.mkdir(parents=True, exist_ok=True)
        (p / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]))
        made = t.BertTokenizerFast(str(p / "vocab.txt"))
        made.save_pretrained(p)
        return made

    def bert(p):
        t.BertModel(t.BertConfig(**tiny)).save_pretrained(p)
        return tokenizer(p)

    def own(_, p):
        with tempfile.TemporaryDirectory() as d:
            package = pathlib.Path(d) / "own_model"
            package.mkdir()
            for name, text in {"__init__": "", "configuration_own": OWN_CONFIG, "modeling_own": OWN_MODEL}.items():
                (package / (name + ".py")).write_text(text)
            sys.path.insert(0, d)
            config = importlib.import_module("own_model.configuration_own").OwnConfig
            model = importlib.import_module("own_model.modeling_own").OwnModel
            config.register_for_auto_class()
            model.register_for_auto_class("AutoModel")
            model(config()).save_pretrained(p)

    def sentences(d, p):
        from sentence_transformers import SentenceTransformer, models
        bert(d)
        SentenceTransformer(modules=[models.Transformer(str(d)), models.Pooling(16), models.Dense(16, 8), models.Normalize()], device="cpu").save(str(p))

    def adapter(d, p):
        import peft
        bert(d)
        peft.get_peft_model(t.BertModel.from_pretrained(d), peft.LoraConfig(target_modules=["query"], r=2)).save_pretrained(p)

    def unconditional(_, p):
        import diffusers as f
        unet = f.UNet2DModel(sample_size=8, block_out_channels=(32, 32), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, layers_per_block=1, norm_num_groups=8)
        f.DDPMPipeline(unet, f.DDPMScheduler()).save_pretrained(p)

    def stable(d, p):
        import diffusers as f
        unet = f.UNet2DConditionModel(sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=16, norm_num_groups=8,
                                      down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"))
        f.StableDiffusionPipeline(vae=f.AutoencoderKL(block_out_channels=[32], norm_num_groups=8), text_encoder=t.CLIPTextModel(t.CLIPTextConfig(**tiny)), tokenizer=tokenizer(d), unet=unet,
                                  scheduler=f.PNDMScheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False).save_pretrained(p)
    kinds = {
        "transformers_bert": lambda _, p: bert(p),
        "transformers_sharded": lambda _, p: t.LlamaForCausalLM(t.LlamaConfig(num_key_value_heads=2, **tiny)).save_pretrained(p, max_shard_size="5KB"),
        "transformers_own": own, "sentence-transformers_dense": sentences, "peft_lora": adapter, "diffusers_ddpm": unconditional, "diffusers_stable": stable,
    }
    for name, write in kinds.items():
        with tempfile.TemporaryDirectory() as d:
            attempt("repositories/" + name, lambda p: write(pathlib.Path(d), p))


for part in torch_modules, torch_values, torch_training, torch_graphs, hugging_face, sentence_transformers, ultralytics, lightning, repositories:
    try:
        part()
    except Exception as e:
        left_out.append(f"{part.__name__}: {type(e).__name__}: {e}")
print(written, "files")
print(*left_out, sep="\n")
