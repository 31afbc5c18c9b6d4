// Package executable knows programs and libraries by their headers: ELF, PE,
// Mach-O, the polyglots of Cosmopolitan (as llamafile is one), WebAssembly, and
// the bytecode of Python, Java, Android and Lua; and scripts, of which some carry
// an archive. It finds native code in the middle of other content as well. A
// program is never understood, so its content is unread besides its headers.
package executable

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/window"
)

const class = "executable"

const (
	ruleNative    = "executable.native"
	ruleBytecode  = "executable.bytecode"
	ruleEmbedded  = "executable.embedded"
	ruleMalformed = "executable.malformed"
	ruleScript    = "executable.script"
	ruleCarrier   = "executable.script.carrier"
)

// Rules lists the rules that this package may name.
func Rules() []string {
	return []string{ruleNative, ruleBytecode, ruleEmbedded, ruleMalformed, ruleScript, ruleCarrier, "model.limit"}
}

// Image is what the headers of a program say.
type Image struct {
	// Format is the format's id.
	Format string
	// What the program is, in words: machine and kind.
	What string
	// Headers is how many bytes the headers take.
	Headers int64
	// Bytecode is set when an interpreter runs it, and not the machine.
	Bytecode bool
	// Fault says in what the headers contradict themselves.
	Fault string
}

// Format is programs and libraries as a format of the program.
type Format struct{}

// Identify implements content.Format.
func (Format) Identify(_ context.Context, v *content.Visit) (bool, error) {
	image, err := Read(window.New(v.Bytes, v.Size), 0)
	return image != nil, err
}

// Scan implements content.Format.
func (Format) Scan(_ context.Context, v *content.Visit) error {
	image, err := Read(window.New(v.Bytes, v.Size), 0)
	if err != nil || image == nil {
		return err
	}
	v.Format = image.Format
	rule := ruleNative
	if image.Bytecode {
		rule = ruleBytecode
	}
	v.Found(rule, class, 0, image.Format, image.What)
	headers := min(image.Headers, v.Size)
	if image.Fault != "" {
		v.Found(ruleMalformed, class, 0, image.Fault)
		headers = 0
	}
	v.Parsed(0, headers)
	v.Unread(headers, v.Size, predicate.UnsupportedFormat)
	v.Unread(v.Size, v.Size, predicate.UnsupportedFormat)
	return nil
}

// Read reads the headers of a program that begins at an offset. It gives nil when
// none does. An error says that the bytes could not be read.
func Read(w *window.Reader, at int64) (*Image, error) {
	head, err := piece(w, at, 64)
	if err != nil || len(head) < 8 {
		return nil, err
	}
	magic := string(head[:4])
	switch {
	case magic == "\x7fELF":
		return elf(head, w.Size()-at), nil
	case hasPrefix(head, "MZqFpD='", "jartsr='", "APEDBG='"):
		return &Image{Format: "ape", What: "actually portable executable", Headers: 8}, nil
	case magic[:2] == "MZ":
		return pe(w, at, head)
	case magic == "\xca\xfe\xba\xbe", magic == "\xca\xfe\xba\xbf":
		return fat(head, w.Size()-at), nil
	case machOrder(magic) != nil:
		return mach(head, w.Size()-at), nil
	}
	return bytecode(head), nil
}

// piece is up to n bytes at an offset: fewer at the end.
func piece(w *window.Reader, at int64, n int) ([]byte, error) {
	b, err := w.Bytes(at, int(min(int64(n), w.Size()-at)))
	if errors.Is(err, window.ErrBeyond) {
		return nil, nil
	}
	return b, err
}

func hasPrefix(b []byte, marks ...string) bool {
	for _, m := range marks {
		if strings.HasPrefix(string(b[:min(len(b), len(m))]), m) {
			return true
		}
	}
	return false
}

var elfMachines = map[uint16]string{
	2: "sparc", 3: "x86", 8: "mips", 20: "powerpc", 21: "powerpc64", 22: "s390", 40: "arm", 50: "ia-64", 62: "x86-64", 183: "aarch64",
	190: "cuda", 224: "amdgpu", 243: "risc-v", 247: "bpf", 252: "csky", 258: "loongarch", 164: "hexagon", 94: "xtensa",
}

var elfKinds = map[uint16]string{1: "object", 2: "program", 3: "shared library", 4: "core dump"}

// elf reads the header of the System V ABI's object files, of which left bytes
// are there.
func elf(h []byte, left int64) *Image {
	image := &Image{Format: "elf", What: "elf", Headers: 64}
	if len(h) < 52 || h[4] != 1 && h[4] != 2 || h[5] != 1 && h[5] != 2 || h[6] != 1 {
		image.Fault = "the identification is no valid one"
		return image
	}
	var order binary.ByteOrder = binary.LittleEndian
	if h[5] == 2 {
		order = binary.BigEndian
	}
	machine, known := elfMachines[order.Uint16(h[18:])]
	kind := elfKinds[order.Uint16(h[16:])]
	var size uint16
	var tables [2]uint64
	if h[4] == 1 {
		image.Headers, size = 52, order.Uint16(h[40:])
		tables = [2]uint64{uint64(order.Uint32(h[28:])), uint64(order.Uint32(h[32:]))}
	} else if len(h) >= 64 {
		size = order.Uint16(h[52:])
		tables = [2]uint64{order.Uint64(h[32:]), order.Uint64(h[40:])}
	}
	if !known {
		machine = "unknown machine"
	}
	if kind == "" {
		kind = "of unknown kind"
	}
	image.What = machine + " " + kind
	switch {
	case order.Uint32(h[20:]) != 1 || int64(size) != image.Headers:
		image.Fault = "version or size of the header is no valid one"
	case tables[0] > uint64(left) || tables[1] > uint64(left):
		image.Fault = "a table of headers lies beyond the end"
	}
	return image
}

var peMachines = map[uint16]string{
	0x14c: "x86", 0x8664: "x86-64", 0xaa64: "aarch64", 0x1c0: "arm", 0x1c4: "arm", 0x200: "ia-64", 0xebc: "efi", 0x5064: "risc-v",
}

// maxStub bounds how far behind its mark the headers of a PE file are looked for,
// in bytes.
const maxStub = 4096

// pe reads the headers of Microsoft's format; what has none is no image.
func pe(w *window.Reader, at int64, h []byte) (*Image, error) {
	if len(h) < 64 {
		return nil, nil
	}
	behind := int64(binary.LittleEndian.Uint32(h[60:]))
	if behind < 4 || behind > maxStub {
		return nil, nil
	}
	b, err := piece(w, at+behind, 26)
	if err != nil || len(b) < 26 || string(b[:4]) != "PE\x00\x00" {
		return nil, err
	}
	machine, known := peMachines[binary.LittleEndian.Uint16(b[4:])]
	if !known {
		return nil, nil
	}
	image := &Image{Format: "pe", What: machine + " program", Headers: behind + 24 + int64(binary.LittleEndian.Uint16(b[20:]))}
	if flags := binary.LittleEndian.Uint16(b[22:]); flags&0x2000 != 0 {
		image.What = machine + " library"
	}
	if m := binary.LittleEndian.Uint16(b[24:]); m != 0x10b && m != 0x20b {
		image.Fault = "the optional header has no valid mark"
	}
	return image, nil
}

var machCPUs = map[uint32]string{7: "x86", 7 | 1<<24: "x86-64", 12: "arm", 12 | 1<<24: "aarch64", 12 | 1<<25: "aarch64", 18: "powerpc", 18 | 1<<24: "powerpc64"}

var machKinds = map[uint32]string{1: "object", 2: "program", 4: "core dump", 6: "shared library", 7: "linker", 8: "bundle", 9: "stub", 10: "symbols", 11: "extension"}

func machOrder(magic string) binary.ByteOrder {
	switch magic {
	case "\xce\xfa\xed\xfe", "\xcf\xfa\xed\xfe":
		return binary.LittleEndian
	case "\xfe\xed\xfa\xce", "\xfe\xed\xfa\xcf":
		return binary.BigEndian
	}
	return nil
}

// mach reads the header of a Mach-O file of one machine.
func mach(h []byte, left int64) *Image {
	if len(h) < 28 {
		return nil
	}
	order := machOrder(string(h[:4]))
	cpu, kind := machCPUs[order.Uint32(h[4:])], machKinds[order.Uint32(h[12:])]
	commands := int64(order.Uint32(h[20:]))
	if cpu == "" || kind == "" || order.Uint32(h[16:]) > 100_000 {
		return nil
	}
	image := &Image{Format: "macho", What: cpu + " " + kind, Headers: 28 + commands}
	if order.Uint32(h)&1 == 1 {
		image.Headers += 4
	}
	if image.Headers > left {
		image.Fault = "the load commands lie beyond the end"
	}
	return image
}

// fat reads the header of a Mach-O file of several machines, or of a Java class,
// which has the same mark.
func fat(h []byte, left int64) *Image {
	if len(h) < 28 {
		return nil
	}
	if n := binary.BigEndian.Uint32(h[4:]); n > 0 && n < 40 {
		if cpu := machCPUs[binary.BigEndian.Uint32(h[8:])]; cpu != "" {
			return &Image{Format: "macho", What: cpu + " among several machines", Headers: min(left, 8+20*int64(n))}
		}
	}
	if major := binary.BigEndian.Uint16(h[6:]); major >= 45 && major < 100 && h[3] == 0xbe {
		return &Image{Format: "java-class", What: "java class", Headers: 8, Bytecode: true}
	}
	return nil
}

// bytecode reads the marks of what an interpreter runs.
func bytecode(h []byte) *Image {
	image := &Image{Headers: 8, Bytecode: true}
	switch {
	case hasPrefix(h, "\x00asm\x01\x00\x00\x00", "\x00asm\x0d\x00\x01\x00"):
		image.Format, image.What = "wasm", "webassembly module"
	case hasPrefix(h, "dex\n0") && h[7] == 0:
		image.Format, image.What = "dex", "android bytecode"
	case hasPrefix(h, "\x1bLua\x51", "\x1bLua\x52", "\x1bLua\x53", "\x1bLua\x54", "\x1bLua\x55"):
		image.Format, image.What = "lua", "lua bytecode"
	case hasPrefix(h, "BC\xc0\xde", "\xde\xc0\x17\x0b"):
		image.Format, image.What = "llvm", "llvm bitcode"
	case pyc(h) > 0:
		image.Format, image.What, image.Headers = "pyc", "python bytecode", pyc(h)
	default:
		return nil
	}
	return image
}

// pyc is the size of the header of Python's compiled modules (PEP 3147, PEP 552),
// or 0. Behind it stands a code object.
func pyc(h []byte) int64 {
	if string(h[2:4]) != "\r\n" {
		return 0
	}
	size := 0
	switch magic := binary.LittleEndian.Uint16(h); {
	case magic >= 3390 && magic < 4100:
		size = 16
	case magic >= 3190 && magic < 3390:
		size = 12
	case magic >= 3000 && magic < 3190, magic >= 50000 && magic < 63000:
		size = 8
	}
	if size == 0 || len(h) <= size || h[size]&0x7f != 'c' {
		return 0
	}
	return int64(size)
}
