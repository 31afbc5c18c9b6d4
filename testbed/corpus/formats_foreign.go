package corpus

import (
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// foreignFiles are programs, and the models of other languages and runtimes.
func foreignFiles() []ModelFile {
	return slices.Concat(executableFiles())
}

func zeros(n int) string { return strings.Repeat("\x00", n) }

// The headers of programs that hold no instruction.
func elfHeader() string {
	return "\x7fELF\x02\x01\x01" + zeros(9) + "\x03\x00\x3e\x00\x01\x00\x00\x00" + zeros(28) + "\x40\x00" + zeros(10)
}

func peHeader() string {
	return "MZ" + zeros(58) + le32(64) + "PE\x00\x00\x64\x86" + zeros(14) + le16(0) + le16(0x2000) + "\x0b\x02" + zeros(30)
}

func machHeader() string { return "\xcf\xfa\xed\xfe\x07\x00\x00\x01" + zeros(4) + le32(6) + zeros(16) }

func executableFiles() []ModelFile {
	const native, bytecode, embedded, carrier = "executable.native", "executable.bytecode", "executable.embedded", "executable.script.carrier"
	u8 := func(data string) string {
		return safetensorsOf(`{"w":{"dtype":"U8","shape":[`+decimal(len(data))+`],"data_offsets":[0,`+decimal(len(data))+`]}}`, data)
	}
	return []ModelFile{
		gap(set(predicate.Fail, "elf", "executable: a library of Linux", elfHeader(), native)),
		gap(set(predicate.Fail, "elf", "executable: a broken library of Linux", elfHeader()[:40], native, "executable.malformed")),
		gap(set(predicate.Fail, "pe", "executable: a library of Windows", peHeader(), native)),
		gap(set(predicate.Fail, "macho", "executable: a library of macOS", machHeader(), native)),
		gap(set(predicate.Fail, "macho", "executable: of several machines", "\xca\xfe\xba\xbe"+be32(2)+"\x01\x00\x00\x07"+zeros(60), native)),
		gap(set(predicate.Fail, "ape", "executable: a polyglot with a model in it", "MZqFpD='\n"+string(zipped([]member{{name: "a.safetensors", data: u8(floats(2))}})), native, "content.polyglot", ruleHidden, "archive.malformed")),
		gap(set(predicate.Fail, "wasm", "executable: webassembly", "\x00asm\x01\x00\x00\x00", bytecode)),
		gap(set(predicate.Fail, "java-class", "executable: a Java class", "\xca\xfe\xba\xbe\x00\x00\x00\x41"+zeros(40), bytecode)),
		gap(set(predicate.Fail, "pyc", "executable: a compiled module of Python", "\xa7\x0d\r\n"+zeros(12)+"\xe3"+zeros(30), bytecode)),
		gap(set(predicate.Error, "script", "executable: a shell script", "#!/bin/sh\necho "+inertWord+"\n", "executable.script")),
		gap(set(predicate.Fail, "script", "executable: a zipapp", "#!/usr/bin/env python3\n"+rawZip([]zipEntry{stored("__main__.py", "x = 1\n")}), carrier, ruleHidden, "archive.malformed")),
		gap(set(predicate.Fail, "script", "executable: a script with a program behind", "#!/bin/sh\nexit\n"+elfHeader(), carrier, embedded)),
		set(predicate.Fail, "safetensors", "executable: a library in a tensor", u8("abcd"+elfHeader()), embedded),
		set(predicate.Fail, "safetensors", "executable: a library of Windows in a tensor", u8("MZ"+peHeader()), embedded),
		set(predicate.Fail, "safetensors", "executable: a library of macOS in a tensor", u8("x"+machHeader()), embedded),
		set(predicate.Pass, "safetensors", "executable: marks without headers", u8("\x7fELF"+zeros(60)+"MZ\x00\x00PE\x00\x00\x64\x86"+"\xcf\xfa\xed\xfe"+zeros(40))),
		gap(set(predicate.Fail, "torch-zip", "executable: a library in a checkpoint", string(zipped(append(torchMembers(stateDict()), member{name: "model/extra/lib.so", data: elfHeader()}))), native, "format.unsafe.pickle")),
	}
}
