package python

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// silent reports whether nothing is said against a program that would keep it
// from passing.
func silent(t *testing.T, src string) bool {
	t.Helper()
	p, err := Check(src)
	if err != nil && !errors.Is(err, errLimit) {
		t.Fatalf("%q: %v", src[:min(len(src), 200)], err)
	}
	for _, one := range p.problems {
		if one.rule != ruleDeferred {
			return false
		}
	}
	return err == nil
}

// TestWays goes the ways by which a program can come to a call that runs commands
// or code at import, or hides that it does.
func TestWays(t *testing.T) {
	for _, src := range ways {
		if silent(t, src) {
			t.Errorf("nothing is said of %q", src)
		}
	}
}

// TestBehindMany hides a call behind more of something than is kept or followed.
func TestBehindMany(t *testing.T) {
	many := func(n int, format, between string) string {
		parts := make([]string, n)
		for i := range parts {
			parts[i] = strings.ReplaceAll(format, "#", fmt.Sprint(i))
		}
		return strings.Join(parts, between)
	}
	const head = "import os, math\n"
	for _, n := range []int{10, 30, 100, 1200, 5000} {
		for name, src := range map[string]string{
			"names in a loop":           head + "for n in [" + many(n, "'path#'", ", ") + ", 'system']:\n    getattr(os, n)('x')\n",
			"pairs in a loop":           head + "for n, a in [" + many(n, "('path#', #)", ", ") + ", ('system', 'x')]:\n    getattr(os, n)(a)\n",
			"functions in a loop":       head + many(n, "def f#(x): return #\n", "") + "def g(x): os.system(x)\nfor f in [" + many(n, "f#", ", ") + ", g]:\n    f('x')\n",
			"references in a loop":      head + "for f in [" + many(n, "math.f#", ", ") + ", os.system]:\n    f('x')\n",
			"objects in a loop":         head + many(n, "class C#:\n    def go(s, x): return x\n", "") + "class D:\n    def go(s, x): os.system(x)\nfor c in [" + many(n, "C#()", ", ") + ", D()]:\n    c.go('x')\n",
			"branches":                  head + many(n, "if c#:\n    n = 'path#'\n", "") + "if d:\n    n = 'system'\ngetattr(os, n)('x')\n",
			"assignments":               head + many(n, "n = 'path#'\n", "") + "n = 'system'\ngetattr(os, n)('x')\n",
			"what is not known":         head + "n = 'path'\nn = open('x').read()\ngetattr(os, n)('x')\n",
			"appended":                  head + "L = []\n" + many(n, "L.append(math.g#)\n", "") + "L.append(os.system)\nfor f in L: f('x')\n",
			"appended, the last":        head + "def g(x): os.system(x)\nL = []\n" + many(n, "L.append(math.g#)\n", "") + "L.append(g)\nL[-1]('x')\n",
			"returned":                  head + "def g(a):\n" + many(n, "    if a == #: return math.g#\n", "") + "    return os.system\ng(1)('x')\n",
			"a mapping":                 head + "def g(x): os.system(x)\nD = {" + many(n, "'k#': math.f#", ", ") + ", 'z': g}\nD['z']('x')\n",
			"a mapping, filled":         head + "def g(x): os.system(x)\nD = {}\n" + many(n, "D['k#'] = math.f#\n", "") + "D['z'] = g\nD['z']('x')\n",
			"fields":                    head + "class C:\n" + many(n, "    a# = 1\n", "") + "    def z(x): os.system(x)\nC.z('x')\n",
			"calls of one function":     head + "def f(m, n, a): return getattr(m, n)(a)\n" + many(n, "f(os, 'path#', 'x')\n", "") + "f(os, 'system', 'x')\n",
			"calls of one constructor":  head + "class C:\n  def __init__(s, m, n): s.f = getattr(m, n)\n" + many(n, "C(os, 'path#')\n", "") + "C(os, 'system').f('x')\n",
			"calls that apply":          head + "def f(n, a): return n(a)\n" + many(n, "f(len, #)\n", "") + "f(os.system, 'x')\n",
			"calls that give back":      head + "def f(n): return n\n" + many(n, "f(#)\n", "") + "f(os.system)('x')\n",
			"calls within calls":        head + "def g(a, b): os.system(a)\n" + "def g0(a, b): g(a, b)\n" + chain(n) + fmt.Sprintf("g%d('a', 'b')\n", n-1),
			"arguments":                 head + "def f(*a): getattr(os, a[-1])('x')\nf(" + many(n, "'path#'", ", ") + ", 'system')\n",
			"attributes":                head + "os" + strings.Repeat(".path.os", n) + ".system('x')\n",
			"findings":                  head + many(n, "open('x', 'w')\n", "") + "os.system('x')\n",
			"functions before a method": head + many(n, "def f#(): pass\n", "") + "class M:\n    def forward(self, x): os.system('x')\n",
		} {
			if silent(t, src) {
				t.Errorf("%s: nothing is said behind %d", name, n)
			}
		}
	}
}

// chain is functions that call each other three times, with other arguments.
func chain(n int) string {
	var b strings.Builder
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "def g%d(a, b):\n    g%d(a, b)\n    g%d(b, a)\n    g%d(a + b, b)\n", i, i-1, i-1, i-1)
	}
	return b.String()
}

var ways = []string{
	"import os\nclass C:\n    def __add__(self, k): return os.system(k)\nC() + 'x'\n",
	"import os\nassert os.system('x') == 0\n",
	"import os, asyncio\nasync def m(): os.system('x')\nasyncio.run(m())\n",
	"import asyncio\nasyncio.get_event_loop().run_until_complete(asyncio.create_subprocess_shell('x'))\n",
	"import os, atexit\natexit.register(os.system, 'x')\n",
	"import os\nclass C:\n    def __bool__(self): return os.system('x')\nif C(): pass\n",
	"import os\ngetattr(os, b'system'.decode())('x')\n",
	"import cProfile\ncProfile.run('import os')\n",
	"import cffi\ncffi.FFI().dlopen(None).system(b'x')\n",
	"import os\ngetattr(os, ''.join(chr(c) for c in [115,121,115,116,101,109]))('x')\n",
	"import os\nclass B:\n    def __class_getitem__(cls, k): os.system(k)\nB['x']\n",
	"import os\ndef f(n):\n    def g(a): getattr(os, n)(a)\n    return g\nf('system')('x')\n",
	"import os\nclass C:\n    f = os.system\nC.f('x')\n",
	"class C:\n    import os\n    os.system('x')\n",
	"import os\nclass system: pass\ngetattr(os, system.__name__)('x')\n",
	"import code\ncode.InteractiveInterpreter().runcode('x')\n",
	"import os, codecs\ncodecs.register(lambda n: os.system('x'))\n",
	"import types, marshal\ntypes.FunctionType(marshal.loads(b'x'), {})()\n",
	"import ctypes\nctypes.CDLL(None).system(b'x')\n",
	"from ctypes import cdll\ncdll.LoadLibrary('libc.so.6').system(b'x')\n",
	"import os\nfrom dataclasses import dataclass, field\n@dataclass\nclass C:\n    x: int = field(default_factory=lambda: os.system('x'))\nC()\n",
	"import os\ndef d(n):\n    def w(f):\n        getattr(os, n)('x')\n        return f\n    return w\n@d('system')\ndef f(): pass\n",
	"import os\nclass C:\n    def __del__(self): os.system('x')\nC()\n",
	"import os\nos.__dict__['system']('x')\n",
	"import os\nos.__dict__.get('system')('x')\n",
	"import os\nfor k, v in os.__dict__.items():\n    if k == 'system': v('x')\n",
	"import os\n[v for k, v in vars(os).items() if k.endswith('tem')][0]('x')\n",
	"import dill\ndill.loads(b'x')\n",
	"import os\nfor k in dir(os):\n    if k == 'system': getattr(os, k)('x')\n",
	"'''system'''\nimport os\ngetattr(os, __doc__)('x')\n",
	"import doctest\ndoctest.testfile('x')\n",
	"import os\nfor i in []: pass\nelse: os.system('x')\n",
	"import os, enum\nclass E(enum.Enum):\n    A = 1\n    def __init__(self, v): os.system('x')\n",
	"import os\ngetattr(os, os.environ['X'])('x')\n",
	"import os, sys\nsys.excepthook = lambda *a: os.system('x')\n",
	"exec('import os; os.system(1)')\n",
	"import os\nfrom concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor().submit(os.system, 'x')\n",
	"import os\ngetattr(os, __file__[0:6])('x')\n",
	"import os\nlist(filter(os.system, ['x']))\n",
	"import os\ntry:\n    pass\nfinally:\n    os.system('x')\n",
	"import os\ngetattr(os, '{}{}'.format('sys','tem'))('x')\n",
	"import os\ndef system(): pass\ngetattr(os, system.__name__)('x')\n",
	"import os\nos.fork()\n",
	"import os\nimport torch.nn as nn\nclass M(nn.Module):\n    def forward(self, x):\n        os.system('x')\n        return x\n",
	"import sys\nsys._getframe().f_globals['__builtins__'].eval('1')\n",
	"from os import system as s\ns('x')\n",
	"from posix import system\nsystem('x')\n",
	"import os\na='sys'\ngetattr(os, f'{a}tem')('x')\n",
	"import os\ndef g():\n    yield 'system'\nfor n in g(): getattr(os, n)('x')\n",
	"import os\ndef g():\n    yield os\nfor m in g(): m.system('x')\n",
	"import os\nclass D:\n    def __get__(self, o, t): os.system('x')\nclass C:\n    x = D()\nC.x\n",
	"import os\nclass C:\n    def __getitem__(self, k): return os.system(k)\nC()['x']\n",
	"import os\ndef a(): b()\ndef b(): c()\ndef c(): os.system('x')\na()\n",
	"import os\nglobals()['os'].system('x')\n",
	"import torch\ntorch.hub.load('x/y','z')\n",
	"m = __import__('o' + 's')\nm.system('x')\n",
	"import sys\nm = __import__(sys.argv[1])\nm.system('x')\n",
	"import sys\nm = __import__(sys.argv[1])\ngetattr(m, sys.argv[2])('x')\n",
	"import os as o\no.system('x')\n",
	"import os, sys\nclass F:\n    def find_spec(self, *a): os.system('x')\nsys.meta_path.insert(0, F())\n",
	"import importlib\nimportlib.import_module('os').system('x')\n",
	"from importlib import import_module as i\ni('subprocess').run('x')\n",
	"import os\nclass B:\n    def __init_subclass__(cls): os.system('x')\nclass C(B): pass\n",
	"import os\ngetattr(os, 'metsys'[::-1])('x')\n",
	"import os\nclass C:\n    def __iter__(self): os.system('x'); return iter([])\nfor i in C(): pass\n",
	"import joblib\njoblib.load('x')\n",
	"import os\ngetattr(os, ''.join(['sys','tem']))('x')\n",
	"import os\ndef f(g): g('x')\nf(**{'g': os.system})\n",
	"import os\ndef f(**kw): kw['g']('x')\nf(g=os.system)\n",
	"import os\ndef f(**kw): getattr(os, kw['g'])('x')\nf(g='system')\n",
	"import os\n(lambda s=os.system: s('x'))()\n",
	"__loader__.load_module('os').system('x')\n",
	"import os\nlist(map(os.system, ['x']))\n",
	"import os\nmatch os:\n    case m: m.system('x')\n",
	"import os\nclass M(type):\n    def __new__(m, n, b, d): os.system('x'); return type.__new__(m,n,b,d)\nclass C(metaclass=M): pass\n",
	"import sys\nsys.modules['os'].system('x')\n",
	"import sys\nsys.modules.get('os').system('x')\n",
	"import sys\nfor k, m in sys.modules.items():\n    if k == 'os': m.system('x')\n",
	"import os\nclass A:\n    def go(self): os.system('x')\nclass B(A): pass\nB().go()\n",
	"def f():\n    import os\n    os.system('x')\nf()\n",
	"import numpy as np\nnp.load('x', allow_pickle=True)\n",
	"import numexpr\nnumexpr.evaluate('x')\n",
	"import os, operator\noperator.attrgetter('system')(os)('x')\n",
	"import os, operator\noperator.methodcaller('system', 'x')(os)\n",
	"import os\nos.execv('/bin/sh',['x'])\n",
	"import shutil\nshutil.os.system('x')\n",
	"from random import _os\n_os.system('x')\n",
	"import logging\nlogging.os.system('x')\n",
	"import numpy as np\nnp.os.system('x')\n",
	"import os, functools\nfunctools.partial(os.system, 'x')()\n",
	"from pathlib import Path\nPath('/root/.bashrc').write_text('x')\n",
	"import os\ngetattr(os, '%s%s' % ('sys','tem'))('x')\n",
	"import pdb\npdb.run('x')\n",
	"import pandas as pd\npd.eval('x')\n",
	"import pickle\npickle.loads(b'x')\n",
	"import pip\npip.main(['install','x'])\n",
	"import pkgutil\npkgutil.resolve_name('os:system')('x')\n",
	"import os\nclass C:\n    @property\n    def p(self): return getattr(os, self.n)\nc = C()\nc.n = 'system'\nc.p('x')\n",
	"import pty\npty.spawn('x')\n",
	"import pydoc\npydoc.locate('os.system')('x')\n",
	"import os, functools\nfunctools.reduce(getattr, ['system'], os)('x')\n",
	"import runpy\nrunpy.run_path('x')\n",
	"import os\nclass D:\n    def __set_name__(self, o, n): os.system(n)\nclass C:\n    x = D()\n",
	"import shelve\nshelve.open('x')['a']\n",
	"import os, signal\nsignal.signal(2, lambda *a: os.system('x'))\n",
	"import socket\ns = socket.socket()\ns.connect(('x',1))\n",
	"import os\nsorted(['x'], key=os.system)\n",
	"import importlib.util\nimportlib.util.find_spec('os').loader.load_module().system('x')\n",
	"import os\ndef f(*a): getattr(os, a[70])('x')\nf('path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','path','system')\n",
	"from os import *\nsystem('x')\n",
	"import os\ndef f(*a): getattr(os, a[0])(a[1])\nf('system','x')\n",
	"import os\nclass C:\n    def __str__(self): os.system('x'); return ''\nprint(C())\n",
	"import os\ngetattr(os, 'SYSTEM'.lower())('x')\n",
	"[c for c in ().__class__.__base__.__subclasses__() if c.__name__=='Popen'][0]('x')\n",
	"import subprocess as s\nr = s.__dict__['run']\nr('x')\n",
	"import os\nclass A:\n    def go(self): os.system('x')\nclass B(A):\n    def go(self): super().go()\nB().go()\n",
	"import os, threading\nthreading.Thread(target=os.system, args=('x',)).start()\n",
	"import timeit\ntimeit.timeit('import os; os.system(1)')\n",
	"import torch\ntorch.load('x')\n",
	"import trace\ntrace.Trace().run('x')\n",
	"import os\ntry:\n    1/0\nexcept Exception:\n    os.system('x')\n",
	"import os\nC = type('C', (), {'go': lambda self: os.system('x')})\nC().go()\n",
	"import urllib.request\nexec(urllib.request.urlopen('http://x').read())\n",
	"import os\nvars(os)['system']('x')\n",
	"import os\nif (s := os.system): s('x')\n",
	"import webbrowser\nwebbrowser.open('x')\n",
	"import os\nclass C:\n    def __enter__(self): return os\n    def __exit__(self, *a): pass\nwith C() as m: m.system('x')\n",
	"import os\nclass C:\n    def __enter__(self): os.system('x')\n    def __exit__(self, *a): pass\nwith C(): pass\n",
	"open('/root/.bashrc','a').write('x')\n",
	"import yaml\nyaml.load('x', Loader=yaml.Loader)\n",
}
