package corpus

import (
	"strings"
)

// legacyMagic begins the first pickle of torch's format before zip archives:
// the number 0x1950a86a20f9469cfc6c.
const legacyMagic = "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"

// LegacyTorch is a checkpoint in torch's format before zip archives: a magic
// number, a protocol, facts of the machine, the object, the storages' keys, and
// then their bytes. Each argument replaces the pickle that is there otherwise;
// an empty one leaves it.
func LegacyTorch(magic, protocol, system, object, keys string) []byte {
	pick := func(given, otherwise string) string {
		if given != "" {
			return given
		}
		return otherwise
	}
	legacyID := func(key string, n int) string {
		return "(" + binUnicode("storage") + global("torch", "FloatStorage") + binUnicode(key) + binUnicode("cpu") + binInt(n) + "NtQ"
	}
	tensor := global("torch._utils", "_rebuild_tensor_v2") + "(" + legacyID("94700", 16) + "K\x00K\x10\x85K\x01\x85\x89" +
		global("collections", "OrderedDict") + ")RtR"
	facts := "}(" + binUnicode("protocol_version") + "M\xe9\x03" + binUnicode("little_endian") + "\x88" +
		binUnicode("type_sizes") + "}(" + binUnicode("short") + "K\x02" + binUnicode("int") + "K\x04uu."
	return []byte(pick(magic, proto(2)+legacyMagic+".") +
		pick(protocol, proto(2)+"M\xe9\x03.") +
		pick(system, proto(2)+facts) +
		pick(object, proto(2)+"}("+binUnicode("weight")+tensor+"u.") +
		pick(keys, proto(2)+"]"+binPut(0)+binUnicode("94700")+"a.") +
		le64(16) + floats(16))
}

// Joblib is a list of one array as joblib writes it uncompressed: the wrapper's
// state, padding to 16 bytes when aligned (before joblib 1.2 there was none), the
// raw elements, and then the pickle goes on. The elements are 16 floats of 4
// bytes when raw is empty; raw is 64 bytes.
func Joblib(raw, rest string, aligned bool) []byte {
	if raw == "" {
		raw = floats(16)
	}
	head := proto(4) + "](" + stackGlobal("joblib.numpy_pickle", "NumpyArrayWrapper") + ")\x81}(" +
		shortUnicode("subclass") + stackGlobal("numpy", "ndarray") +
		shortUnicode("shape") + "K\x10\x85" + shortUnicode("order") + shortUnicode("C") +
		shortUnicode("dtype") + stackGlobal("numpy", "dtype") + shortUnicode("f4") + "\x89\x88\x87R(K\x03" + shortUnicode("<") +
		"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb" +
		shortUnicode("allow_mmap") + "\x88"
	if !aligned {
		return []byte(head + "ub" + raw + rest)
	}
	head += shortUnicode("numpy_array_alignment_bytes") + "K\x10ub"
	pad := (16 - (len(head)+1)%16) % 16
	return []byte(head + string([]byte{byte(pad)}) + strings.Repeat("\xff", pad) + raw + rest)
}

func streamAttacks() []Attack {
	const c = "stream"
	system := proto(2) + callSystem + "."
	none := proto(2) + "N."
	system4 := proto(4) + stackGlobal("os", "system") + shortUnicode(inertWord) + "\x85R."
	hidden := proto(2) + "B" + le32(len(system)) + system + "."
	framed := func(n int, body string) string { return proto(4) + "\x95" + le64(n) + body }
	long := strings.Repeat("w", 70_000)
	return []Attack{
		attack(c, "payload before broken bytes", proto(2)+callSystem+"\xff\xff", osSystem),
		attack(c, "payload with no STOP", proto(2)+callSystem, osSystem),
		attack(c, "payload before a stack underflow", proto(2)+callSystem+"000.", osSystem),
		attack(c, "payload before an unset memo entry", proto(2)+callSystem+"h\xee.", osSystem),
		attack(c, "GLOBAL whose last line does not end", "cos\nsystem ", osSystem),
		attack(c, "second stream", none+system, osSystem),
		attack(c, "second stream behind junk", none+"\x00\xff\x00junk"+system, osSystem),
		attack(c, "second stream behind raw numbers", none+floats(200)+system, osSystem),
		attack(c, "second stream behind a megabyte", none+strings.Repeat("\x00\x00\x80\x3f", 1<<18)+system, osSystem),
		attack(c, "second stream of protocol 0 behind junk", none+"\x00\x00\xffcos\nsystem\n(S'x'\ntR.", osSystem),
		attack(c, "second stream of short strings behind junk", none+"\x00\x00\xff"+stackGlobal("os", "system")+shortUnicode("x")+"\x85R.", osSystem),
		attack(c, "second stream that begins with the first one's memo", proto(2)+"Nq\x00.]h\x000"+callSystem+"\xff", osSystem),
		attack(c, "third stream behind a broken second", none+proto(2)+"00."+system, osSystem),
		attack(c, "third stream behind a cut second", none+proto(4)+"\x8e"+le64(1<<40)+system, osSystem),
		attack(c, "second stream broken behind its payload", none+proto(2)+callSystem+"\xff", osSystem),
		attack(c, "stream behind an unknown opcode", proto(2)+"N\xff."+system, osSystem),
		attack(c, "protocol 0", "cos\nsystem\n(S'x'\ntR.", osSystem),
		attack(c, "protocol 1", "(cos\nsystem\nU\x01xo.", osSystem),
		attack(c, "protocol 1 behind data", "]q\x00(K\x01K\x02e0cos\nsystem\n(U\x01xtR.", osSystem),
		attack(c, "PROTO twice", proto(2)+proto(4)+proto(2)+callSystem+".", osSystem),
		attack(c, "PROTO in the middle", proto(2)+"N0"+proto(4)+stackGlobal("os", "system")+")R.", osSystem),
		attack(c, "PROTO behind the payload", callSystem+proto(9), osSystem),
		attack(c, "unknown protocol", proto(9)+callSystem+".", osSystem),
		attack(c, "unknown protocol in the middle", proto(2)+"N0"+proto(0xfe)+callSystem+".", osSystem),
		attack(c, "frame longer than the file", framed(1<<40, system4[2:]), osSystem),
		attack(c, "frame of more than 63 bits", framed(-1, system4[2:]), osSystem),
		attack(c, "frame of nothing", framed(0, system4[2:]), osSystem),
		attack(c, "frame that opcodes straddle", framed(3, system4[2:]), osSystem),
		attack(c, "frames that overlap", framed(100, "\x95"+le64(90)+system4[2:]), osSystem),
		attack(c, "frame that hides a stream behind STOP", framed(2+5, "N.")+"B"+le32(len(system))+system+".", osSystem),
		attack(c, "frame that ends within a counted payload", framed(2+7, "N.")+hidden, osSystem),
		attack(c, "frame that ends within a GLOBAL's second line", framed(2+3+5, "\x80\x02cos\nword")+"system\n)R.", osSystem),
		attack(c, "frame that ends within a GLOBAL's first line", framed(2+3, "\x80\x02cin")+"os\nsystem\n)R.", osSystem),
		attack(c, "frame that ends within an INST", framed(2+4+3, "\x80\x02(ios\nin")+"system\n.", osSystem),
		attack(c, "frame that ends within a counted string", framed(4+6, shortUnicode("os")+"\x8c\x06harm")+"system\x93)R.", osSystem),
		attack(c, "frame that ends within a count", framed(6, shortUnicode("os")+"X\x07")+le32(6)+"system\x93)R.", osSystem),
		attack(c, "frame that ends within a line of the second stream", framed(2+5, "N.\x80\x02cin")+"os\nsystem\n)R.", osSystem),
		attack(c, "frame read from behind the frame around it", framed(9+8, "\x95"+le64(30)+"harmless")+shortUnicode("os")+shortUnicode("system")+"\x93)R"+strings.Repeat("N", 20)+".", osSystem),
		attack(c, "INT in base 16", "I0x1F\n0"+callSystem+".", osSystem),
		attack(c, "INT in base 8", "I0o17\n0"+callSystem+".", osSystem),
		attack(c, "INT with underscores", "I1_000\n0"+callSystem+".", osSystem),
		attack(c, "INT with spaces", "I  7 \n0"+callSystem+".", osSystem),
		attack(c, "INT with NUL", "I7\x00zz\n0"+callSystem+".", osSystem),
		attack(c, "INT that is no number", "Ino\n0"+callSystem+".", osSystem),
		attack(c, "LONG with underscores", "L1_0L\n0"+callSystem+".", osSystem),
		attack(c, "LONG in base 2", "L0b11L\n0"+callSystem+".", osSystem),
		attack(c, "FLOAT with spaces", "F 1.5 \n0"+callSystem+".", osSystem),
		attack(c, "BINSTRING of negative length", callSystem+"T\xff\xff\xff\xff.", osSystem),
		attack(c, "payload behind a BINSTRING of negative length", proto(2)+"T\xff\xff\xff\xff0"+system, osSystem),
		attack(c, "LONG4 of negative length", proto(2)+"\x8b\xff\xff\xff\xff0"+system, osSystem),
		attack(c, "hexadecimal escapes in STRING", proto(4)+"S'\\x6fs'\nS'sys\\x74em'\n\x93)R.", osSystem),
		attack(c, "octal escapes in STRING", proto(4)+"S'\\157s'\nS'sys\\164em'\n\x93)R.", osSystem),
		attack(c, "continued line in STRING", proto(4)+"S'o\\s'\n0S'os'\nS\"system\"\n\x93)R.", osSystem),
		attack(c, "escapes in UNICODE", proto(4)+"V\\u006fs\nVs\\U00000079stem\n\x93)R.", osSystem),
		attack(c, "memo that one unpickler carries into the second stream", proto(4)+shortUnicode("os")+"\x94."+proto(4)+
			shortUnicode("math")+"\x94h\x00"+shortUnicode("system")+"\x93)R.", osSystem),
		attack(c, "memo index of 2^31", proto(4)+shortUnicode("os")+"r"+le32(1<<31)+"0j"+le32(1<<31)+shortUnicode("system")+"\x93)R.", osSystem),
		attack(c, "memo index of 2^40", proto(4)+shortUnicode("os")+"p1099511627776\n0g1099511627776\n"+shortUnicode("system")+"\x93)R.", osSystem),
		attack(c, "memo index set twice", proto(4)+shortUnicode("math")+"q\x00"+shortUnicode("os")+"q\x0000h\x00"+shortUnicode("system")+"\x93)R.", osSystem),
		attack(c, "memo index with underscores", proto(4)+shortUnicode("os")+"p1_0\n0h\x0a"+shortUnicode("system")+"\x93)R.", osSystem),
		attack(c, "memo index with NUL", proto(4)+shortUnicode("os")+"p7\x00zz\n0g7\x00\x00\n"+shortUnicode("system")+"\x93)R.", osSystem),
		attack(c, "items left on the stack", proto(2)+"NNN("+callSystem+"NN.", osSystem),
		attack(c, "payload behind a long string", proto(2)+"X"+le32(len(long))+long+callSystem+".", osSystem),
		attack(c, "payload behind a long line", "V"+long+"\n0"+callSystem+".", osSystem),
		attack(c, "GET and DUP that expand", proto(2)+"]"+strings.Repeat("2\x86", 400)+callSystem+".", osSystem),
		attack(c, "legacy torch: payload in the magic number's pickle", string(LegacyTorch(proto(2)+callSystem+"0"+legacyMagic+".", "", "", "", "")), osSystem),
		attack(c, "legacy torch: computed magic number", string(LegacyTorch(proto(2)+call(global("builtins", "eval"), binUnicode(inertWord))+".", "", "", "", "")), [2]string{"builtins", "eval"}),
		attack(c, "legacy torch: wrong magic number", string(LegacyTorch(proto(2)+"K\x05.", "", proto(2)+callSystem+".", "", "")), osSystem),
		attack(c, "legacy torch: payload in the protocol", string(LegacyTorch("", system, "", "", "")), osSystem),
		attack(c, "legacy torch: payload in the machine's facts", string(LegacyTorch("", "", system, "", "")), osSystem),
		attack(c, "legacy torch: payload in the object", string(LegacyTorch("", "", "", system, "")), osSystem),
		attack(c, "legacy torch: payload in the keys", string(LegacyTorch("", "", "", "", system)), osSystem),
		attack(c, "legacy torch: payload behind the storages", string(LegacyTorch("", "", "", "", ""))+system, osSystem),
		attack(c, "joblib: payload behind an array", string(Joblib("", callSystem+"e.", true)), osSystem),
		attack(c, "joblib: an array that is a payload when read as a pickle", string(Joblib((callSystem + "." + strings.Repeat("N", 64))[:64], "e.", false)), osSystem),
		doubtful(c, "second stream cut in its first name", none+proto(2)+"cnumpy\n"),
		doubtful(c, "no STOP", proto(2)+"N"),
		doubtful(c, "odd number of items", proto(2)+"}(K\x01u."),
	}
}
