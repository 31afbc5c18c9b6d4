package corpus

import "strings"

func meaningAttacks() []Attack {
	const c = "meaning"
	p4 := proto(4)
	word := shortUnicode(inertWord)
	text := shortUnicode
	get := stackGlobal
	bytes := func(s string) string { return "B" + le32(len(s)) + s }
	inner := proto(2) + callSystem + "."
	run := func(module, name string, args ...string) string { return p4 + call(get(module, name), args...) + "." }
	imported := call(get("importlib", "import_module"), text("os"))
	attacks := []Attack{
		attack(c, "call of what a call returned", p4+call(call(get("functools", "partial"), get("os", "system")), word)+".", osSystem, pair("functools", "partial")),
		attack(c, "call of what an unknown call returned", p4+call(call(get("mymodel", "factory")), word)+".", pair("mymodel", "factory")),
		attack(c, "call of what a vetted call returned", p4+call(call(get("collections", "OrderedDict")), word)+"."),
		attack(c, "call of data", p4+call(word, word)+"."),
		attack(c, "call of persistent_load's value", p4+call("Pid\n", word)+"."),
		attack(c, "getattr of an imported module", p4+call(call(get("builtins", "getattr"), imported, text("system")), word)+".", osSystem),
		attack(c, "getattr of a computed module and name", p4+call(call(get("builtins", "getattr"), call(get("importlib", "import_module"),
			call(get("builtins", "str.join"), text(""), list(chars("os")))), call(get("builtins", "str.lower"), text("SYSTEM"))), word)+".", osSystem),
		attack(c, "getattr of a global", p4+call(call(get("builtins", "getattr"), get("mymodel", "os"), text("system")), word)+".", pair("mymodel", "os.system")),
		attack(c, "attrgetter", p4+call(call(call(get("operator", "attrgetter"), text("system")), imported), word)+".", osSystem),
		attack(c, "attrgetter of a dotted name", p4+call(call(call(get("operator", "attrgetter"), text("path.os.system")), imported), word)+".", pair("os", "path.os.system")),
		attack(c, "methodcaller", p4+call(call(get("operator", "methodcaller"), text("system"), word), imported)+".", osSystem),
		attack(c, "getitem of sys.modules", p4+call(call(get("builtins", "getattr"), call(get("operator", "getitem"), get("sys", "modules"), text("os")), text("system")), word)+".", osSystem),
		attack(c, "itemgetter", p4+call(call(get("operator", "itemgetter"), text("os")), get("sys", "modules"))+".", pair("sys", "modules")),
		attack(c, "vars", p4+call(call(get("operator", "getitem"), call(get("builtins", "vars"), imported), text("system")), word)+".", osSystem),
		attack(c, "__import__", p4+call(call(get("builtins", "getattr"), call(get("builtins", "__import__"), text("os")), text("system")), word)+".", osSystem),
		attack(c, "partial", p4+call(call(get("functools", "partial"), get("os", "system"), word))+".", osSystem),
		attack(c, "reduce", run("functools", "reduce", get("os", "system"), list(word, word)), osSystem),
		attack(c, "map", p4+call(get("builtins", "list"), call(get("builtins", "map"), get("os", "system"), list(word)))+".", osSystem, pair("builtins", "map")),
		attack(c, "filter", run("builtins", "filter", get("os", "system"), list(word)), osSystem),
		attack(c, "starmap", run("itertools", "starmap", get("os", "system"), list(word+"\x85")), osSystem),
		attack(c, "default factory", p4+call(get("collections", "defaultdict"), get("os", "getcwd"))+".", pair("os", "getcwd")),
		attack(c, "resolve_name", p4+call(call(get("pkgutil", "resolve_name"), text("os:system")), word)+".", osSystem),
		attack(c, "resolve_name of a dotted path", p4+call(call(get("pkgutil", "resolve_name"), text("os.system")), word)+".", osSystem),
		attack(c, "pydoc.locate", p4+call(call(get("pydoc", "locate"), text("os.system")), word)+".", osSystem),
		attack(c, "logging's resolver", p4+call(call(get("logging.config", "_resolve"), text("os.system")), word)+".", osSystem),
		attack(c, "numpy's ufunc by name", p4+call(call(get("numpy.core", "_ufunc_reconstruct"), text("os"), text("system")), word)+".", osSystem),
		attack(c, "BUILD on a module", p4+imported+"}"+text("name")+word+"sb.", pair("importlib", "import_module")),
		attack(c, "BUILD on a class", p4+get("collections", "OrderedDict")+"}"+text("a")+"K\x01sb."),
		attack(c, "BUILD on a function", p4+get("torch._utils", "_rebuild_tensor")+"}"+text("__code__")+"K\x01sb."),
		attack(c, "BUILD of a slot that is special", p4+get("mymodel", "C")+")\x81N}"+text("__class__")+get("os", "_Environ")+"s\x86b.", pair("os", "_Environ")),
		attack(c, "SETITEM on a class", p4+get("collections", "OrderedDict")+text("a")+"K\x01s."),
		attack(c, "SETITEM on os.environ", p4+get("os", "environ")+text("PATH")+word+"s.", pair("os", "environ")),
		attack(c, "SETITEMS on sys.modules", p4+get("sys", "modules")+"("+text("a")+"K\x01u.", pair("sys", "modules")),
		attack(c, "APPEND on sys.path", p4+get("sys", "path")+word+"a.", pair("sys", "path")),
		attack(c, "APPENDS on an unknown global", p4+get("mymodel", "hooks")+"("+word+"e.", pair("mymodel", "hooks")),
		attack(c, "SETITEM on a module's namespace", p4+call(get("builtins", "vars"), imported)+text("a")+"K\x01s.", pair("builtins", "vars")),
		doubtful(c, "__setstate__ called by name", run("torch.nn.modules.module", "Module.__setstate__", "N", "}"), pair("torch.nn.modules.module", "Module.__setstate__")),
		attack(c, "copyreg.pickle", run("copyreg", "pickle", get("collections", "OrderedDict"), get("os", "system")), osSystem, pair("copyreg", "pickle")),
		attack(c, "copyreg._reconstructor of a dangerous base", run("copyreg", "_reconstructor", get("mymodel", "C"), get("subprocess", "Popen"), word), pair("subprocess", "Popen")),
		attack(c, "copyreg.constructor", run("copyreg", "constructor", get("os", "system")), osSystem),
		attack(c, "persistent id of a tuple with a call", p4+"("+text("storage")+call(get("os", "system"), word)+text("0")+"tQ.", osSystem),
		attack(c, "rebuild of a type by a dangerous function", run("torch._tensor", "_rebuild_from_type_v2", get("os", "system"), get("torch", "Tensor"), word+"\x85", "}"), osSystem),
		attack(c, "rebuild of a type by a computed function", p4+call(get("torch._tensor", "_rebuild_from_type_v2"), call(get("mymodel", "f")), get("torch", "Tensor"), word+"\x85", "}")+".", pair("mymodel", "f")),
		attack(c, "namedtuple", run("collections", "namedtuple", word, word), pair("collections", "namedtuple")),
		attack(c, "types.FunctionType", run("types", "FunctionType", call(get("marshal", "loads"), bytes("x")), "}"), pair("types", "FunctionType"), pair("marshal", "loads")),
		attack(c, "type made of a special method", p4+call(get("builtins", "type"), text("X"), ")", "}"+text("__del__")+get("os", "system")+"s")+".", osSystem),
	}
	return append(attacks, append(nestedAttacks(c, inner), gadgets(c)...)...)
}

// nestedAttacks are loaders that are given a payload in bytes.
func nestedAttacks(c, inner string) []Attack {
	p4 := proto(4)
	get, text := stackGlobal, shortUnicode
	bytes := func(s string) string { return "B" + le32(len(s)) + s }
	run := func(module, name string, args ...string) string { return p4 + call(get(module, name), args...) + "." }
	file := func(s string) string { return call(get("io", "BytesIO"), bytes(s)) }
	archive := string(zipped(torchMembers(inner)))
	var attacks []Attack
	for _, p := range [][2]string{
		{"pickle", "loads"}, {"_pickle", "loads"}, {"dill", "loads"}, {"cloudpickle", "loads"}, {"torch.storage", "_load_from_bytes"},
		{"pandas.io.pickle", "loads"}, {"numpy.core.multiarray", "loads"}, {"marshal", "loads"}, {"mymodel", "restore"},
	} {
		a := attack(c, "nested in "+p[0]+"."+p[1], run(p[0], p[1], bytes(inner)), p, osSystem)
		attacks = append(attacks, a)
	}
	for _, p := range [][2]string{
		{"pickle", "load"}, {"torch", "load"}, {"numpy", "load"}, {"joblib", "load"}, {"pandas", "read_pickle"}, {"pickle", "Unpickler"},
	} {
		attacks = append(attacks, attack(c, "nested in a buffer for "+p[0]+"."+p[1], run(p[0], p[1], file(inner)), p, osSystem))
	}
	coded := call(get("base64", "b64decode"), text(base64Of(inner)))
	return append(attacks,
		attack(c, "nested archive", run("torch.storage", "_load_from_bytes", bytes(archive)), osSystem),
		attack(c, "nested in base64", p4+call(get("pickle", "loads"), coded)+".", osSystem),
		attack(c, "nested in base64, decoded by codecs", run("pickle", "loads", call(get("codecs", "decode"), bytes(base64Of(inner)), text("base64"))), osSystem),
		attack(c, "nested in hexadecimal", run("pickle", "loads", call(get("binascii", "unhexlify"), text(hexOf(inner)))), osSystem),
		attack(c, "nested in hexadecimal text that is only passed on", run("mymodel", "restore", text(hexOf(inner))), osSystem),
		attack(c, "nested in latin-1 text", run("pickle", "loads", call(get("_codecs", "encode"), text("cos\nsystem\n(S'x'\ntR."), text("latin1"))), osSystem),
		attack(c, "nested twice", run("pickle", "loads", bytes(run("pickle", "loads", bytes(inner)))), osSystem),
		attack(c, "nested in a state", p4+get("mymodel", "C")+")\x81"+bytes(inner)+"b.", osSystem),
		attack(c, "nested in plain data", p4+"]"+bytes(inner)+"a."+"", osSystem),
		attack(c, "nested in data that ends in junk", run("pickle", "loads", bytes(inner+strings.Repeat("\xff", 20))), osSystem),
	)
}

// gadgets are names of trusted packages that run, load, write or fetch.
func gadgets(c string) []Attack {
	var attacks []Attack
	for _, p := range [][2]string{
		{"builtins", "open"}, {"builtins", "exec"}, {"builtins", "compile"}, {"builtins", "breakpoint"}, {"builtins", "setattr"},
		{"subprocess", "Popen"}, {"subprocess", "check_output"}, {"os", "popen"}, {"os", "remove"}, {"shutil", "rmtree"},
		{"pathlib", "Path.write_text"}, {"io", "FileIO"}, {"codecs", "open"}, {"tempfile", "mktemp"}, {"logging", "FileHandler"},
		{"socket", "create_connection"}, {"urllib.request", "urlopen"}, {"http.client", "HTTPConnection"}, {"smtplib", "SMTP"}, {"ftplib", "FTP"},
		{"requests", "get"}, {"requests.api", "get"}, {"httpx", "get"}, {"aiohttp", "request"}, {"webbrowser", "open"}, {"ssl", "get_server_certificate"},
		{"pip", "main"}, {"pip._internal", "main"}, {"ensurepip", "bootstrap"}, {"venv", "create"}, {"setuptools.sandbox", "run_setup"},
		{"huggingface_hub", "snapshot_download"}, {"transformers", "AutoModel.from_pretrained"}, {"transformers.pipelines", "pipeline"},
		{"transformers.dynamic_module_utils", "get_class_from_dynamic_module"}, {"torch.hub", "load"}, {"torch.hub", "load_state_dict_from_url"},
		{"torch.utils.model_zoo", "load_url"}, {"torch.jit", "load"}, {"torch._C", "import_ir_module"},
		{"numpy", "fromfile"}, {"numpy", "memmap"}, {"numpy.lib.npyio", "load"}, {"numpy.f2py.crackfortran", "getlincoef"}, {"numpy.f2py.crackfortran", "myeval"},
		{"numpy.f2py.crackfortran", "_eval_length"}, {"numpy.f2py.diagnose", "run_command"}, {"numpy.testing._private.utils", "runstring"},
		{"numpy.distutils.exec_command", "exec_command"}, {"numpy.ctypeslib", "load_library"}, {"numpy.core", "_ufunc_reconstruct"},
		{"torch._dynamo.guards", "GuardBuilder.get"}, {"torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression"},
		{"torch.utils.collect_env", "run"}, {"torch.utils._config_module", "ConfigModule.load_config"}, {"torch.utils.bottleneck.__main__", "run_cprofile"},
		{"torch.utils.bottleneck.__main__", "run_autograd_prof"}, {"torch.jit.unsupported_tensor_ops", "execWrapper"}, {"torch.fx.graph_module", "_exec_with_source"},
		{"torch._inductor.codecache", "compile_file"}, {"torch.utils.cpp_extension", "load_inline"}, {"torch.distributed.rpc", "rpc_sync"},
		{"torch.utils.data.datapipes.utils.decoder", "basichandlers"}, {"torch.cuda.memory", "_snapshot"},
		{"idlelib.autocomplete", "AutoComplete.fetch_completions"}, {"idlelib.autocomplete", "AutoComplete.get_entity"}, {"idlelib.calltip", "get_entity"},
		{"idlelib.debugobj", "ObjectTreeItem.SetText"}, {"idlelib.pyshell", "ModifiedInterpreter.runcode"}, {"idlelib.run", "Executive.runcode"},
		{"lib2to3.pgen2.grammar", "Grammar.loads"}, {"lib2to3.pgen2.pgen", "ParserGenerator.make_label"}, {"ensurepip", "_run_pip"},
		{"asyncio.unix_events", "_UnixSubprocessTransport._start"}, {"asyncio.base_subprocess", "BaseSubprocessTransport"}, {"asyncio", "run"},
		{"distutils.file_util", "write_file"}, {"distutils.spawn", "spawn"}, {"distutils.core", "run_setup"}, {"test.support.script_helper", "assert_python_ok"},
		{"test.support", "run_code"}, {"profile", "Profile.run"}, {"cProfile", "runctx"}, {"timeit", "timeit"}, {"trace", "Trace.run"}, {"pdb", "run"}, {"bdb", "Bdb.run"},
		{"doctest", "debug_script"}, {"code", "InteractiveInterpreter.runcode"}, {"runpy", "run_path"}, {"zipimport", "zipimporter"}, {"imp", "load_source"},
		{"pkg_resources", "run_script"}, {"multiprocessing.util", "spawnv_passfds"}, {"pty", "spawn"}, {"platform", "popen"}, {"cgitb", "lookup"},
		{"uuid", "_get_command_stdout"}, {"ctypes", "CDLL"}, {"cffi", "FFI"}, {"sqlite3", "connect"}, {"shelve", "open"}, {"dbm", "open"}, {"dill", "load"},
		{"yaml", "unsafe_load"}, {"jsonpickle", "decode"}, {"pandas", "read_pickle"}, {"pandas", "eval"}, {"sklearn.datasets", "fetch_openml"}, {"joblib", "Memory"},
		{"site", "addsitedir"}, {"sysconfig", "_init_posix"}, {"_osx_support", "_read_output"}, {"aifc", "open"}, {"atexit", "register"}, {"signal", "signal"},
		{"threading", "Thread"}, {"sched", "scheduler"}, {"weakref", "finalize"}, {"unittest.mock", "patch"}, {"xml.etree.ElementTree", "parse"}, {"gettext", "c2py"},
		{"typing", "get_type_hints"}, {"inspect", "getattr_static"}, {"dataclasses", "make_dataclass"}, {"ast", "literal_eval"}, {"string", "Formatter.format"},
		{"jinja2", "Template"}, {"scipy.io", "loadmat"}, {"onnxruntime", "InferenceSession"}, {"tensorflow", "load_op_library"}, {"keras.models", "load_model"},
		{"lightgbm", "Booster"}, {"mlflow.pyfunc", "load_model"}, {"nltk", "download"}, {"bdb", "Bdb.runeval"}, {"pyarrow", "deserialize"}, {"gc", "get_objects"},
	} {
		a := attack(c, "gadget: "+p[0]+"."+p[1], proto(4)+stackGlobal(p[0], p[1])+shortUnicode(inertWord)+"\x85R.", p)
		attacks = append(attacks, a)
	}
	return attacks
}
