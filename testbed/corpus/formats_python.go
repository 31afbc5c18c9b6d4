package corpus

import "github.com/cavra/cavra/schemas/predicate"

// modelProgram is what the Python file of a model of its own looks like.
const modelProgram = `"""A model of its own."""
import math
from typing import Optional

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from .configuration_tiny import TinyConfig

logger = __import__("logging").getLogger(__name__)
ACTIVATIONS = {"relu": nn.ReLU(), "scaled": lambda x: x * math.sqrt(2)}


class TinyAttention(nn.Module):
    def __init__(self, config: TinyConfig, layer: Optional[int] = None):
        super().__init__()
        self.project = nn.Linear(config.hidden_size, config.hidden_size)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ACTIVATIONS["relu"](self.project(x))


class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.layers = nn.ModuleList([TinyAttention(config, i) for i in range(config.layers)])
        self.post_init()

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


TinyConfig.register_for_auto_class()
TinyModel.register_for_auto_class("AutoModel")
`

// PythonPrograms are Python files as model repositories have them, and others.
func PythonPrograms() []Setting {
	pass := func(name, content string) Setting { return set(predicate.Pass, "python", name, content) }
	fail := func(name, content string, rules ...string) Setting {
		return set(predicate.Fail, "python", name, content, rules...)
	}
	warn := func(name, content, rule string) Setting {
		return set(predicate.Warn, "python", name, content, rule)
	}
	const dangerous, hidden, use = "python.call.dangerous", "python.obfuscated", "python.call.use"
	return []Setting{
		pass("model", modelProgram),
		pass("paths", "import os, sys\nsys.path.append(os.path.dirname(__file__))\nos.makedirs('cache', exist_ok=True)\n"),
		pass("reads a file", "import json\n\n\ndef load(path):\n    with open(path) as f:\n        return json.load(f)\n\n\nNAMES = load('names.json')\n"),
		pass("Python 2", "import os\nprint 'loading', 1\n"),
		set(predicate.Pass, "python", "command in a function", "import subprocess\n\n\ndef build():\n    subprocess.run(['"+inertWord+"'])\n", "python.call.deferred"),
		fail("command", "import os\nos.system('"+inertWord+"')\n", dangerous),
		fail("command by an alias", "from subprocess import Popen as P\nP(['"+inertWord+"'])\n", dangerous),
		fail("command in a class body", "import os\nclass A:\n    os.system('"+inertWord+"')\n", dangerous),
		fail("command in a constructor that runs", "import os\nclass A:\n    def __init__(self):\n        os.system('"+inertWord+"')\nA()\n", dangerous),
		fail("command in a decorator", "import os\ndef d(f):\n    os.system('"+inertWord+"')\n@d\ndef g(): pass\n", dangerous),
		fail("command in a default", "import os\ndef f(x=os.system('"+inertWord+"')): pass\n", dangerous),
		fail("getattr", "import os\ngetattr(os, 'sys' + 'tem')('"+inertWord+"')\n", dangerous),
		fail("import by name", "__import__('o' + 's').system('"+inertWord+"')\n", dangerous),
		fail("base64", "import base64\nexec(base64.b64decode('eCA9IDE='))\n", hidden),
		fail("numbers", "exec(''.join(chr(c) for c in [120, 61, 49]))\n", hidden),
		fail("compressed", "import zlib\nexec(zlib.decompress(b'x'))\n", hidden),
		fail("marshal", "import marshal\nexec(marshal.loads(b'x'))\n", dangerous),
		fail("library", "import ctypes\nctypes.CDLL('"+inertWord+".so')\n", dangerous),
		fail("connection", "import socket\ns = socket.socket()\ns.connect(('"+inertWord+".invalid', 1))\n", dangerous),
		fail("download", "import urllib.request\nurllib.request.urlretrieve('https://"+inertWord+".invalid/x', 'x')\n", dangerous),
		fail("installs", "import subprocess, sys\nsubprocess.check_call([sys.executable, '-m', 'pip', 'install', '"+inertWord+"'])\n", dangerous),
		fail("handler", "import os\nclass EndpointHandler:\n    def __init__(self, path=''):\n        os.system('"+inertWord+"')\n", use),
		fail("called by a handler", "import subprocess\ndef run_all(x):\n    subprocess.run(x)\nclass H:\n    def handle(self, data, context):\n        run_all(data)\n", use),
		fail("module's own getattr", "import os\ndef __getattr__(name):\n    os.system('"+inertWord+"')\n", use),
		fail("replaces a function", "import os, torch\ndef f(*a):\n    os.system('"+inertWord+"')\ntorch.load = f\n", use),
		warn("eval in forward", "class M:\n    def forward(self, x):\n        return eval(x)\n", "python.call.suspect"),
		warn("weights at import", "import torch\nSTATE = torch.load('pytorch_model.bin')\n", "python.call.suspect"),
		warn("internals", "X = ().__class__.__bases__[0].__subclasses__()\n", "python.internals"),
		warn("other letters", "𝐩rint('x')\n", "python.name.disguised"),
		warn("handed over", "import os, pool\npool.submit(os.system, '"+inertWord+"')\n", "python.reference.dangerous"),
	}
}
