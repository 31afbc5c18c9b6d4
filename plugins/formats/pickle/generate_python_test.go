//go:build python

package pickle

import (
	"bytes"
	"math/rand/v2"
	"slices"
)

// odd are pieces that random bytes seldom give: what pickles are attacked with.
var odd = []string{
	"\x80\x02", "\x80\x04", "\x80\x05", "\x80\x00", ".", "N.", "N.\x80\x02", "\x95\x05\x00\x00\x00\x00\x00\x00\x00", "\x95\x00\x00\x00\x00\x00\x00\x00\x00",
	"\x95\xff\xff\xff\xff\xff\xff\xff\xff", "\x95\x20\x00\x00\x00\x00\x00\x00\x00", "I0x1_F\n", "I 7 \n", "I7\x00z\n", "I00\n", "I01\n", "L1_0L\n", "L0b11\n", "F 1_0.5 \n", "Finfinity\n",
	"T\xff\xff\xff\xff", "\x8b\xff\xff\xff\xff", "S'o\\x73'\n", "S\"o\\163\"\n", "S'\\\n'\n", "S'os' \n", "Vo\\u0073\n", "V\\U0000006fs\n", "V\\\\u0073\n", "p1_0\n", "g1_0\n", "p 3\n", "g 3\n",
	"r\x00\x01\x00\x00", "j\x00\x01\x00\x00", "p70000\n", "g70000\n", "(", "1", "0", "2", "(0", "(1", "cos\nsystem\n", "cos\r\nsystem\r\n", "c os\nsystem\n", "ios\nsystem\n", "(ios\nsystem\n",
	"\x8c\x02os\x8c\x06system\x93", "\x8c\x02os\x94\x8c\x06system\x94\x93\x94", "\x80\x02c__builtin__\nmap\n", "\x80\x01citertools\nimap\n", "\x80\x03c__builtin__\nmap\n",
	"\x8c\x08builtins\x8c\x08str.join\x93\x8c\x00](\x8c\x01o\x8c\x01se\x86R", "\x8c\x08builtins\x8c\x03str\x93\x8c\x02os\x85R", "\x8c\x08builtins\x8c\x09str.lower\x93\x8c\x02OS\x85R",
	"\x8c\x06codecs\x8c\x06decode\x93\x8c\x06flfgrz\x8c\x05rot13\x86R", "\x8c\x06base64\x8c\x09b64decode\x93\x8c\x04b3M=\x85R", "\x8c\x08builtins\x8c\x0cbytes.decode\x93C\x02os\x85R",
	"\x8c\x08operator\x8c\x03add\x93\x8c\x01o\x8c\x01s\x86R", "\x8c\x08builtins\x8c\x03chr\x93Ko\x85R", "\x8c\x08builtins\x8c\x0dbytes.fromhex\x93\x8c\x046f73\x85R",
	"\x8c\x08builtins\x8c\x0cstr.swapcase\x93\x8c\x02oS\x85R", "\x8c\x08builtins\x8c\x09str.strip\x93\x8c\x04 os \x85R", "\x8c\x08builtins\x8c\x0bstr.replace\x93\x8c\x03oxs\x8c\x01x\x8c\x00\x87R",
	"\x8c\x08operator\x8c\x07getitem\x93\x8c\x02so\x8c\x08builtins\x8c\x05slice\x93(NNJ\xff\xff\xff\xfftR\x86R",
	"\x8c\x07copyreg\x8c\x0dadd_extension\x93\x8c\x02os\x8c\x06systemK\xf0\x87R0\x82\xf0", "\x83\xf0\x00", "\x84\xf0\x00\x00\x00", "\x82\xf0", "\x82\x00",
	"\x93", "\x93)R", ")R", ")\x81", ")}\x92", "}b", "K\x01K\x02s", "Na", "(Ne", "(K\x01Nu", "(N\x90", "\x91", "(d", "(l", "(t", "(o", "\x97", "\x98", "Q", "Pabc\n", "P\xff\n",
	"\xff", "\x00", "\n", "\x80\x06", "\x80\xff", "N\x85b", "}N\x86b",
}

// torchPieces are what torch's weights-only unpickler takes, and some of what
// it reads in its own way: names of Python 2 under every protocol, protocols
// that there are not, lines that end with the file.
var torchPieces = []string{
	"cos\nsystem\n", "c__builtin__\nmap\n", "citertools\nimap\n", "cUserDict\nUserDict\n", "cexceptions\nValueError\n", "ctorch\nFloatStorage\n", "ccollections\nOrderedDict\n", "cos\r\nsystem\r\n", "c\n\n", "ca.b\nc.d\n",
	")R", ")\x81", "}b", "]", "}", "\x8f", ")", "N", "\x88", "\x89", "K\x05", "M\x01\x02", "J\x01\x02\x03\x04", "G\x3f\xf0\x00\x00\x00\x00\x00\x00", "\x8a\x01\x7f",
	"X\x02\x00\x00\x00os", "U\x02os", "K\x01\x85Q", "X\x07\x00\x00\x00storage\x85Q", "U\x07storage\x85Q", "K\x01Q", "(", "t", "\x85", "\x86", "\x87",
	"](K\x01Ne", "]K\x01a", "}K\x01Ns", "}(K\x01Nu", "q\x00", "q\x01", "h\x00", "h\x01", "r\x00\x01\x00\x00", "j\x00\x01\x00\x00", "r\xff\xff\xff\xff", "j\xff\xff\xff\xff",
	"\x80\x02", "\x80\x04", "\x80\x06", "\x80\xff", "X\xff\xff\x00\x00", "U\xff", ".", "N.",
}

// generateTorch makes a stream of the opcodes that torch's unpickler has.
func generateTorch(rng *rand.Rand) []byte {
	b := []byte("\x80\x02")
	if rng.IntN(4) == 0 {
		b = []byte{opProto, byte(rng.IntN(256))}
	}
	for range rng.IntN(25) {
		b = append(b, torchPieces[rng.IntN(len(torchPieces))]...)
	}
	b = append(b, '.')
	switch rng.IntN(12) {
	case 0:
		b = b[:rng.IntN(len(b))]
	case 1:
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
	case 2:
		b = append(b, generateTorch(rng)...)
	}
	return b
}

// mutate changes a stream in some way that a structured generator would not.
func mutate(rng *rand.Rand, b []byte) []byte {
	for range max(0, rng.IntN(6)-2) {
		at := rng.IntN(len(b) + 1)
		switch rng.IntN(9) {
		case 0, 1, 2:
			b = slices.Insert(b, at, []byte(odd[rng.IntN(len(odd))])...)
		case 3:
			if at < len(b) {
				b[at] ^= 1 << rng.IntN(8)
			}
		case 4:
			to := min(len(b), at+1+rng.IntN(6))
			b = slices.Delete(b, at, to)
		case 5:
			to := min(len(b), at+rng.IntN(24))
			b = slices.Insert(b, rng.IntN(len(b)+1), slices.Clone(b[at:to])...)
		case 6:
			b = append(b, generate(rng)...)
		case 7:
			other := generate(rng)
			b = slices.Concat(b[:at], other[rng.IntN(len(other)+1):])
		case 8:
			code := allOpcodes[rng.IntN(len(allOpcodes))]
			b = slices.Insert(b, at, code)
		}
	}
	if rng.IntN(8) == 0 {
		b = framedAtRandom(rng, b)
	}
	return b
}

// allOpcodes are the opcodes that there are.
var allOpcodes = func() []byte {
	var all []byte
	for code, form := range arguments {
		if form != argUnknown {
			all = append(all, byte(code))
		}
	}
	return all
}()

// framedAtRandom puts a stream in a frame, whose length is right or nearly so.
func framedAtRandom(rng *rand.Rand, b []byte) []byte {
	n := len(b)
	if rng.IntN(2) == 0 {
		n += rng.IntN(9) - 4
	}
	return bytes.Join([][]byte{{opProto, 4}, []byte("\x95" + le64(uint64(max(n, 0)))), b}, nil)
}
