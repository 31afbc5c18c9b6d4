package python

import (
	"slices"
	"strings"
	"testing"
)

// brief is what Check says: the rules, in order, or the error.
func brief(src string) string {
	p, err := Check(src)
	var rules []string
	for _, x := range p.problems {
		rules = append(rules, strings.TrimPrefix(x.rule, "python."))
	}
	slices.Sort(rules)
	out := strings.Join(slices.Compact(rules), " ")
	if err != nil {
		out = strings.TrimSpace(out + " error")
	}
	return out
}

func TestImport(t *testing.T) {
	tests := []struct{ name, src, want string }{
		{"call", "import os\nos.system('x')\n", "call.dangerous"},
		{"alias", "import os as o\no.system('x')\n", "call.dangerous"},
		{"from", "from os import system as s\ns('x')\n", "call.dangerous"},
		{"star", "from os import *\nsystem('x')\n", "call.dangerous"},
		{"submodule", "import os.path\nos.system('x')\n", "call.dangerous"},
		{"twin", "import posix\nposix.system('x')\n", "call.dangerous"},
		{"through a module", "import torch\ntorch.os.system('x')\n", "call.dangerous"},
		{"private attribute", "import random\nrandom._os.system('x')\n", "call.dangerous"},
		{"class", "from subprocess import Popen\nPopen(['x'])\n", "call.dangerous"},
		{"assigned", "import os\nf = g = os.system\nf('x')\n", "call.dangerous"},
		{"unpacked", "import os\nf, n = os.system, 1\nf('x')\n", "call.dangerous"},
		{"walrus", "import os\n(f := os.system)('x')\n", "call.dangerous"},
		{"in a list", "import os\n[1, os.system][-1]('x')\n", "call.dangerous"},
		{"in a dict", "import os\n{'a': os.system}['a']('x')\n", "call.dangerous"},
		{"by a default", "import os\ndef f(g=os.system):\n    g('x')\nf()\n", "call.dangerous"},
		{"default runs", "import os\ndef f(x=os.system('x')):\n    pass\n", "call.dangerous"},
		{"annotation runs", "import os\ndef f(x: os.system('x')):\n    pass\n", "call.dangerous"},
		{"annotation does not run", "from __future__ import annotations\nimport os\ndef f(x: os.system('x')):\n    pass\n", ""},
		{"class body", "import os\nclass A:\n    x = os.system('x')\n", "call.dangerous"},
		{"branch", "import os\nif 1:\n    pass\nelse:\n    os.system('x')\n", "call.dangerous"},
		{"try", "try:\n    import os\nfinally:\n    os.system('x')\n", "call.dangerous"},
		{"handler", "import os\ntry:\n    1/0\nexcept Exception as e:\n    os.system('x')\n", "call.dangerous"},
		{"with", "import os\nwith os.popen('x') as f:\n    pass\n", "call.dangerous"},
		{"for", "import os\nfor f in [print, os.system]:\n    f('x')\n", "call.dangerous"},
		{"match", "import os\nmatch 1:\n    case 1 if os.system('x'):\n        pass\n", "call.dangerous"},
		{"comprehension", "import os\n[os.system(x) for x in 'a']\n", "call.dangerous"},
		{"f-string", "import os\nf'{os.system(\"x\")}'\n", "call.dangerous"},
		{"f-string in an f-string", "import os\nf'{f\"{os.system(1)}\":>{os.popen(1)}}'\n", "call.dangerous"},
		{"decorator", "import os\n@os.system\ndef f(): pass\n", "call.dangerous"},
		{"decorator of the file", "import os\ndef d(f):\n    os.system('x')\n    return f\n@d\ndef g(): pass\n", "call.dangerous"},
		{"function", "import os\ndef f():\n    os.system('x')\nf()\n", "call.dangerous"},
		{"function of a function", "import os\ndef f():\n    def g():\n        return os.system\n    return g\nf()()('x')\n", "call.dangerous"},
		{"lambda", "import os\n(lambda s: s('x'))(os.system)\n", "call.dangerous"},
		{"constructor", "import os\nclass A:\n    def __init__(self):\n        os.system('x')\nA()\n", "call.dangerous"},
		{"method", "import os\nclass A:\n    def f(self):\n        self.g()\n    def g(self):\n        os.system('x')\nA().f()\n", "call.dangerous"},
		{"inherited", "import os\nclass A:\n    def f(self):\n        os.system('x')\nclass B(A): pass\nB().f()\n", "call.dangerous"},
		{"attribute", "import os\nclass A:\n    def __init__(self):\n        self.f = os.system\nA().f('x')\n", "call.dangerous"},
		{"property", "import os\nclass A:\n    @property\n    def f(self):\n        os.system('x')\nA().f\n", "call.dangerous"},
		{"operator", "import os\nclass A:\n    def __add__(self, o):\n        os.system('x')\nA() + 1\n", "call.dangerous"},
		{"subclass hook", "import os\nclass A:\n    def __init_subclass__(cls):\n        os.system('x')\nclass B(A): pass\n", "call.dangerous"},
		{"metaclass", "import os\nclass M(type):\n    def __new__(m, *a):\n        os.system('x')\nclass B(metaclass=M): pass\n", "call.dangerous"},
		{"import by name", "__import__('os').system('x')\n", "call.dangerous"},
		{"import by a joined name", "__import__('o' + 's').system('x')\n", "call.dangerous"},
		{"importlib", "import importlib\nimportlib.import_module('os').system('x')\n", "call.dangerous"},
		{"getattr", "import os\ngetattr(os, 'sys' + 'tem')('x')\n", "call.dangerous"},
		{"getattr of a text that is put together", "import os\ngetattr(os, '%s%s' % ('sys', 'tem'))('x')\n", "call.dangerous"},
		{"getattr of what is not known", "import os\ngetattr(os, x)('x')\n", "obfuscated"},
		{"getattr of numbers", "import os\ngetattr(os, ''.join(map(chr, [115, 121, 115, 116, 101, 109])))('x')\n", "call.dangerous obfuscated"},
		{"getattr of a comprehension", "import os\ngetattr(os, ''.join(chr(c ^ 1) for c in [114, 120, 114, 117, 100, 108]))('x')\n", "call.dangerous obfuscated"},
		{"backwards", "import os\ngetattr(os, 'metsys'[::-1])('x')\n", "call.dangerous obfuscated"},
		{"dict of a module", "import os\nos.__dict__['system']('x')\n", "call.dangerous"},
		{"vars of a module", "import os\nvars(os)['system']('x')\n", "call.dangerous"},
		{"sys.modules", "import sys\nsys.modules['os'].system('x')\n", "call.dangerous"},
		{"builtins", "__builtins__['eval'](x)\n", "call.dangerous"},
		{"builtins by globals", "globals()['__builtins__'].exec(x)\n", "call.dangerous"},
		{"self of a builtin", "print.__self__.eval(x)\n", "call.dangerous"},
		{"attrgetter", "import os, operator\noperator.attrgetter('system')(os)('x')\n", "call.dangerous"},
		{"partial", "import os, functools\nfunctools.partial(os.system, 'x')()\n", "call.dangerous"},
		{"map", "import os\nlist(map(os.system, ['x']))\n", "call.dangerous"},
		{"thread", "import os, threading\nthreading.Thread(target=os.system, args=('x',)).start()\n", "call.dangerous"},
		{"atexit", "import os, atexit\natexit.register(os.system, 'x')\n", "call.dangerous"},
		{"handed over", "import os\nimport pool\npool.apply(os.system, ('x',))\n", "reference.dangerous"},
		{"subclasses", "().__class__.__bases__[0].__subclasses__()[1]('x')\n", "internals"},
		{"exec of what is not known", "exec(open('x').read())\n", "call.dangerous"},
		{"exec of a program", "exec('import os; os.system(1)')\n", "call.dangerous"},
		{"exec of a harmless program", "exec('x = 1')\n", ""},
		{"exec of base64", "import base64\nexec(base64.b64decode('aW1wb3J0IG9zOyBvcy5zeXN0ZW0oMSk='))\n", "call.dangerous obfuscated"},
		{"exec of zlib", "import zlib, base64\nexec(zlib.decompress(base64.b64decode('eJw=')))\n", "obfuscated"},
		{"exec of hex", "exec(bytes.fromhex('783d31'))\n", "obfuscated"},
		{"exec of rot13", "import codecs\nexec('cevag(1)'.encode('rot13'))\n", "obfuscated"},
		{"exec of compile", "exec(compile(src, 'x', 'exec'))\n", "call.dangerous"},
		{"eval in Python 2", "exec code in ns\n", "call.dangerous"},
		{"print in Python 2", "import os\nprint os.system('x')\n", "call.dangerous"},
		{"marshal", "import marshal\nmarshal.loads(b'x')\n", "call.dangerous"},
		{"ctypes", "import ctypes\nctypes.CDLL(None).system(b'x')\n", "call.dangerous"},
		{"socket", "import socket\ns = socket.socket()\ns.connect(('x', 1))\n", "call.dangerous"},
		{"requests", "import requests\nrequests.post('http://x', data={})\n", "call.dangerous"},
		{"urllib", "from urllib import request\nrequest.urlopen('http://x')\n", "call.dangerous"},
		{"pip", "import pip\npip.main(['install', 'x'])\n", "call.dangerous"},
		{"asyncio", "import asyncio\nasync def f():\n    await asyncio.create_subprocess_shell('x')\nasyncio.run(f())\n", "call.dangerous"},
		{"other letters", "import os\nos.𝐬ystem('x')\n", "call.dangerous name.disguised"},
		{"continued", "import os; os \\\n  .system('x')\n", "call.dangerous"},
		{"rebound in a branch", "if x:\n    exec = print\nexec(y)\n", "call.dangerous"},
		{"objects", "import torch\ntorch.load('x')\n", "call.suspect"},
		{"write", "open('x', 'w').write('y')\n", "call.suspect"},
		{"write by a path", "from pathlib import Path\nPath('x').write_text('y')\n", "call.suspect"},
		{"read", "open('x').read()\n", ""},
		{"put into an import", "import os, torch\ndef f(*a):\n    os.system('x')\ntorch.load = f\n", "call.use"},
		{"main", "import os\nif __name__ == '__main__':\n    os.system('x')\n", "call.deferred"},
		{"module getattr", "import os\ndef __getattr__(n):\n    os.system('x')\n", "call.use"},
		{"handler of a server", "import os\nclass H:\n    def initialize(self, c):\n        os.system('x')\n", "call.use"},
		{"called by a handler", "import os\ndef f(x):\n    return os.system(x)\nclass H:\n    def handle(self, d):\n        return f(d)\n", "call.use"},
		{"forward", "import os\nclass M:\n    def forward(self, x):\n        exec(x)\n", "call.suspect"},
		{"deferred", "import os\ndef f():\n    os.system('x')\n", "call.deferred"},
		{"broken", "import os\nos.system('x'\n", "error"},
	}
	for _, tt := range tests {
		if got := brief(tt.src); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestHarmless(t *testing.T) {
	tests := []struct{ name, src string }{
		{"model", "import math\nimport torch\nfrom torch import nn\n\n\nclass Model(nn.Module):\n    \"\"\"A model.\"\"\"\n\n    def __init__(self, config):\n        super().__init__()\n        self.l = nn.Linear(config.n, 4)\n\n    @torch.no_grad()\n    def forward(self, x: torch.Tensor) -> torch.Tensor:\n        return self.l(x) * math.sqrt(2)\n\n\nACT = {'relu': nn.ReLU(), 'gelu': lambda x: x}\n"},
		{"paths", "import os, sys\nROOT = os.path.join(os.path.dirname(__file__), 'x')\nsys.path.insert(0, ROOT)\nos.environ['X'] = '1'\nos.makedirs(ROOT, exist_ok=True)\n"},
		{"version", "import re\nv = re.search('x', open('version.py').read()).group(1)\n"},
		{"optional import", "import importlib.util\nif importlib.util.find_spec('flash_attn') is not None:\n    from flash_attn import flash_attn_func\nlogger = __import__('logging').getLogger(__name__)\n"},
		{"names of modules", "import subprocess\nPIPE = subprocess.PIPE\nisinstance(1, subprocess.Popen)\n"},
		{"script", "import torch\nscripted = torch.jit.script(f)\n@torch.compile\ndef g(x): return x\n"},
		{"strings", "x = 'import os; os.system(1)'\n# os.system('x')\n\"\"\"exec(x)\"\"\"\n"},
		{"match as a name", "import re\nmatch = re.match('a', 'b')\nmatch.group(0)\ntype = 1\nprint(match, type)\n"},
		{"soft words", "match (x):\n    case {'a': [1, *r], **k} | Foo(b=1) as z:\n        pass\n    case -1:\n        pass\ntype A[T: int] = list[T]\ndef f[T](x: T, /, *, y=1, **k) -> T: return x\n"},
		{"fields", "f'{x!r:>{w}} {{a}} {y=} {d[\"k\"]:%Y-%m}' rf'\\{z}' b'x'.decode()\n"},
		{"with brackets", "with (open('a') as f, open('b') as g):\n    pass\nwith (yield x): pass\n"},
		{"Python 2", "print 'x', y\nraise E, 'm'\ntry:\n    pass\nexcept (A, B), e:\n    print >>f, `x`\nn = 0777L\n"},
		{"chains", "if a:\n  pass\nelif b:\n  pass\nelse:\n  x = y = z = lambda *a, **k: (a, *k)\nasync def f():\n    async with a as b: await c\n    return [i async for i in x if i if not i]\n"},
	}
	for _, tt := range tests {
		if got := brief(tt.src); got != "" {
			t.Errorf("%s: got %q", tt.name, got)
		}
	}
}

func TestBounds(t *testing.T) {
	tests := []struct{ name, src string }{
		{"brackets", strings.Repeat("(", 100_000)},
		{"closed brackets", strings.Repeat("[", 5000) + strings.Repeat("]", 5000)},
		{"attributes", "a" + strings.Repeat(".b", 100_000) + "\n"},
		{"calls", "a" + strings.Repeat("()", 100_000) + "\n"},
		{"unary", strings.Repeat("-", 100_000) + "1\n"},
		{"not", strings.Repeat("not ", 100_000) + "1\n"},
		{"lambdas", strings.Repeat("lambda: ", 100_000) + "1\n"},
		{"powers", strings.Repeat("1**", 100_000) + "1\n"},
		{"choices", strings.Repeat("1 if 1 else ", 100_000) + "1\n"},
		{"comparisons", strings.Repeat("1 < ", 100_000) + "1\n"},
		{"elif", "if a: pass\n" + strings.Repeat("elif a: pass\n", 10_000)},
		{"blocks", deep(1000)},
		{"f-strings", strings.Repeat("f'{", 100_000)},
		{"doubling", "s = 'x' * 4000\n" + strings.Repeat("s = s + s\n", 100)},
		{"recursion", "def f(x):\n    f(x)\n    f(x)\n    f(x)\nf(1)\n" + strings.Repeat("f(2)\n", 1000)},
	}
	for _, tt := range tests {
		if _, err := Check(tt.src); err == nil && tt.name != "recursion" && tt.name != "doubling" {
			t.Errorf("%s: no error", tt.name)
		}
	}
	if got := brief("x = 1" + strings.Repeat(" + 1", 50_000) + "\nimport os\nos.system('x')\n"); got != "call.dangerous" {
		t.Errorf("a long sum: %q", got)
	}
}

func deep(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "if a:\n")
	}
	return b.String() + strings.Repeat(" ", n) + "pass\n"
}

func FuzzCheck(f *testing.F) {
	for _, s := range []string{
		"import os\nos.system('x')\n", "class A(B, metaclass=C):\n  def f(self, *a: int, k=1) -> x: return [x async for x in y if z]\n",
		"f'{a!r:{b}}' rb'\\x00' \"\"\"x\"\"\"\n", "match x:\n case [a, *b] if c: pass\n", "with (a as b, c): pass\nexec 'x' in y\nprint >>f, `x`\n",
		"exec(bytes([1,2]).decode()[::-1] + chr(3) % 4)\ngetattr(os, 'a'.join(map(chr, [1])))\n", "@d\nasync def f(a, /, b=1): await x\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, _ := Check(s)
		for _, x := range p.problems {
			if x.at < 0 || x.at > len(s) {
				t.Errorf("%s at %d of %d", x.rule, x.at, len(s))
			}
		}
	})
}
