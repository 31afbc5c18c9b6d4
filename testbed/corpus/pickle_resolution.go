package corpus

import "strconv"

// pair is a module and a name.
func pair(module, name string) [2]string { return [2]string{module, name} }

func resolutionAttacks() []Attack {
	const c = "resolution"
	p4 := proto(4)
	os, system, word := shortUnicode("os"), shortUnicode("system"), shortUnicode(inertWord)
	// run calls a name with an inert word.
	run := func(module, name string) string { return p4 + stackGlobal(module, name) + word + "\x85R." }
	// old is run in protocol 2, where names are mapped from Python 2.
	old := func(module, name string) string {
		return proto(2) + global(module, name) + binUnicode(inertWord) + "\x85R."
	}
	// built calls the name that two computations give.
	built := func(module, name string) string { return p4 + module + name + "\x93" + word + "\x85R." }
	of := func(name string, args ...string) string { return call(stackGlobal("builtins", name), args...) }
	bytes := func(s string) string { return "C" + string([]byte{byte(len(s))}) + s }
	register := call(stackGlobal("copyreg", "add_extension"), os, system, "K\xf0") + "0"
	attacks := []Attack{
		attack(c, "memo indirection", p4+system+"\x940"+os+"\x940h\x01h\x00\x93"+word+"\x85R.", osSystem),
		attack(c, "memo indirection twice", p4+system+"q\x050h\x05q\x060"+os+"h\x06\x93)R.", osSystem),
		doubtful(c, "PUT of what lies under a mark", p4+os+"(q\x01"+system+"1."),
		attack(c, "callable by way of the memo", p4+stackGlobal("os", "system")+"q\x070Nh\x07"+word+"\x85R.", osSystem),
		attack(c, "decoy by DUP", p4+os+"20"+system+"\x93)R.", osSystem),
		attack(c, "decoy by POP", p4+os+shortUnicode("path")+"0"+system+"\x93)R.", osSystem),
		attack(c, "decoy by POP_MARK", p4+os+"("+shortUnicode("math")+shortUnicode("floor")+"1"+system+"\x93)R.", osSystem),
		attack(c, "decoy by POP of a mark", p4+os+"(0"+system+"\x93)R.", osSystem),
		attack(c, "GLOBAL", proto(2)+callSystem+".", osSystem),
		attack(c, "INST", "(S'x'\nios\nsystem\n.", osSystem),
		attack(c, "INST without a mark", "ios\nsystem\n.", osSystem),
		attack(c, "OBJ", "(cos\nsystem\nS'x'\no.", osSystem),
		attack(c, "NEWOBJ", p4+stackGlobal("os", "system")+")\x81.", osSystem),
		attack(c, "NEWOBJ_EX", p4+stackGlobal("os", "system")+")}\x92.", osSystem),
		attack(c, "STACK_GLOBAL", run("os", "system"), osSystem),
		attack(c, "EXT1 registered in the stream", p4+register+"\x82\xf0"+word+"\x85R.", osSystem),
		attack(c, "EXT2 registered in the stream", p4+register+"\x83\xf0\x00"+word+"\x85R.", osSystem),
		attack(c, "EXT4 registered in the stream", p4+register+"\x84\xf0\x00\x00\x00"+word+"\x85R.", osSystem),
		attack(c, "extension put into the registry", p4+stackGlobal("copyreg", "_inverted_registry")+"K\xf0"+os+system+"\x86s0\x82\xf0"+word+"\x85R.", osSystem),
		attack(c, "extension put into the cache", p4+stackGlobal("copyreg", "_extension_cache")+"K\xf0"+stackGlobal("os", "system")+"s0\x82\xf0"+word+"\x85R.", osSystem),
		doubtful(c, "extension of the loader's registry", p4+"\x82\x05)R."),
		attack(c, "operands: STRING", p4+"S'os'\nS'system'\n\x93)R.", osSystem),
		attack(c, "operands: UNICODE", p4+"Vos\nVsystem\n\x93)R.", osSystem),
		attack(c, "operands: BINSTRING and SHORT_BINSTRING", p4+"T"+le32(2)+"osU\x06system\x93)R.", osSystem),
		attack(c, "operands: BINUNICODE8", p4+"\x8d"+le64(2)+"os\x8d"+le64(6)+"system\x93)R.", osSystem),
		attack(c, "computed: str", built(of("str", os), system), osSystem),
		attack(c, "computed: str of bytes", built(of("str", bytes("os"), shortUnicode("ascii")), system), osSystem),
		attack(c, "computed: str.join of a list", built(os, of("str.join", shortUnicode(""), list(chars("system")))), osSystem),
		attack(c, "computed: str.join of a tuple", built(os, of("str.join", shortUnicode(""), shortUnicode("sys")+shortUnicode("tem")+"\x86")), osSystem),
		attack(c, "computed: str.join of a string", built(os, of("str.join", shortUnicode(""), system)), osSystem),
		attack(c, "computed: str.lower", built(of("str.lower", shortUnicode("OS")), system), osSystem),
		attack(c, "computed: str.replace", built(of("str.replace", shortUnicode("oxs"), shortUnicode("x"), shortUnicode("")), system), osSystem),
		attack(c, "computed: str.strip", built(of("str.strip", shortUnicode(" os ")), system), osSystem),
		attack(c, "computed: str.format", built(of("str.format", shortUnicode("{}s"), shortUnicode("o")), system), osSystem),
		attack(c, "computed: operator.add", built(call(stackGlobal("operator", "add"), shortUnicode("o"), shortUnicode("s")), system), osSystem),
		attack(c, "computed: str.__add__", built(of("str.__add__", shortUnicode("o"), shortUnicode("s")), system), osSystem),
		attack(c, "computed: bytes.decode", built(of("bytes.decode", bytes("os")), system), osSystem),
		attack(c, "computed: bytes.fromhex", built(of("bytes.decode", of("bytes.fromhex", shortUnicode(hexOf("os")))), system), osSystem),
		attack(c, "computed: codecs.decode in rot13", built(os, call(stackGlobal("codecs", "decode"), shortUnicode("flfgrz"), shortUnicode("rot13"))), osSystem),
		attack(c, "computed: codecs.decode in hex", built(os, of("bytes.decode", call(stackGlobal("codecs", "decode"), bytes(hexOf("system")), shortUnicode("hex")))), osSystem),
		attack(c, "computed: _codecs.decode", built(os, call(stackGlobal("_codecs", "decode"), bytes("system"), shortUnicode("utf-8"))), osSystem),
		attack(c, "computed: base64", built(os, of("bytes.decode", call(stackGlobal("base64", "b64decode"), shortUnicode(base64Of("system"))))), osSystem),
		attack(c, "computed: binascii", built(os, of("bytes.decode", call(stackGlobal("binascii", "a2b_base64"), bytes(base64Of("system"))))), osSystem),
		attack(c, "computed: chr", built(os, of("str.join", shortUnicode(""), list(of("chr", "K\x73"), of("chr", "K\x79"), shortUnicode("stem")))), osSystem),
		attack(c, "computed: reversed by a slice", built(os, call(stackGlobal("operator", "getitem"), shortUnicode("metsys"), of("slice", "N", "N", "J\xff\xff\xff\xff"))), osSystem),
		attack(c, "computed: beyond constants", built(os, of("str.join", shortUnicode(""), "Pid\n"))),
		attack(c, "computed: from persistent_load", built("Pid\n", system)),
		attack(c, "Python 2: __builtin__", old("__builtin__", "eval"), pair("builtins", "eval")),
		attack(c, "Python 2: commands", old("commands", "getoutput"), pair("subprocess", "getoutput")),
		attack(c, "Python 2: UserDict", proto(2)+global("__builtin__", "reduce")+")R.", pair("functools", "reduce")),
		attack(c, "Python 2: itertools.imap", old("itertools", "imap"), pair("builtins", "map")),
		attack(c, "Python 2: cPickle", old("cPickle", "loads"), pair("pickle", "loads")),
		attack(c, "Python 2: urllib", old("urllib", "urlopen"), pair("urllib.request", "urlopen")),
	}
	dotted := []string{"_sys.modules", "abc.sys.modules", "OrderedDict.__init__.__globals__", "OrderedDict.__init__.__builtins__", "namedtuple.__globals__", "_sys.modules.__getitem__"}
	for _, name := range dotted {
		attacks = append(attacks, attack(c, "dotted: collections."+name, run("collections", name), pair("collections", name)))
	}
	for _, p := range [][2]string{
		{"logging", "os.system"}, {"torch.serialization", "os.system"}, {"numpy", "os.system"}, {"random", "_os.system"}, {"decimal", "_sys.modules"},
		{"builtins", "__import__"}, {"builtins", "object.__subclasses__"}, {"builtins", "str.__class__.__subclasses__"}, {"torch.nn.modules.linear", "Linear.__init__.__globals__"},
	} {
		attacks = append(attacks, attack(c, "dotted: "+p[0]+"."+p[1], run(p[0], p[1]), p))
	}
	for _, p := range [][2]string{
		{"posix", "system"}, {"nt", "system"}, {"_io", "open"}, {"_io", "FileIO"}, {"_pyio", "open"}, {"_operator", "attrgetter"}, {"_functools", "partial"},
		{"_interpreters", "run_string"}, {"_xxsubinterpreters", "run_string"}, {"_posixsubprocess", "fork_exec"}, {"_winapi", "CreateProcess"},
		{"_socket", "socket"}, {"_pickle", "loads"}, {"_ctypes", "dlopen"}, {"_thread", "start_new_thread"}, {"_imp", "load_dynamic"},
		{"_frozen_importlib", "_gcd_import"}, {"_testcapi", "run_in_subinterp"}, {"_sqlite3", "connect"}, {"_ssl", "_SSLContext"},
		{"_multiprocessing", "SemLock"}, {"_winreg", "SetValue"}, {"_collections_abc", "sys.modules"}, {"_bootlocale", "_locale"}, {"_aix_support", "subprocess"},
		{"_sitebuiltins", "_Helper"}, {"_pydecimal", "_sys.modules"}, {"_strptime", "_thread_allocate_lock"}, {"_weakrefset", "_IterationGuard"},
	} {
		a := attack(c, "private twin: "+p[0]+"."+p[1], run(p[0], p[1]), p)
		switch p[0] {
		case "_bootlocale", "_weakrefset", "_strptime":
			a = doubtful(a.Class, a.Name, string(a.Content), p)
		}
		attacks = append(attacks, a)
	}
	for _, p := range [][2]string{
		{"OS", "system"}, {"Subprocess", "Popen"}, {"BUILTINS", "eval"}, {"os ", "system"}, {" os", "system"}, {"os\r", "system"}, {"os\x00", "system"},
		{"../os", "system"}, {"os/path", "join"}, {"os\t", "system"},
	} {
		attacks = append(attacks, attack(c, "module spelt "+quoted(p[0]), run(p[0], p[1]), p))
	}
	for _, p := range [][2]string{
		{"mymodel.layers", "Attention"}, {"Mymodel", "Net"}, {"", "system"}, {"__main__", "Model"}, {"os2emxpath", "join"}, {"ｏｓ", "system"}, {"torch.no_such_module", "f"},
	} {
		attacks = append(attacks, doubtful(c, "module unknown: "+p[0], run(p[0], p[1]), p))
	}
	return append(attacks, attack(c, "module with CR in GLOBAL", proto(2)+"cos\r\nsystem\r\n)R.", pair("os\r", "system\r")))
}

// quoted spells a word so that control characters show.
func quoted(s string) string { return strconv.Quote(s) }
