package corpus

import (
	"slices"
	"strings"

	"github.com/cavra/cavra/schemas/predicate"
)

// foreignFiles are programs, and the models of other languages and runtimes.
func foreignFiles() []ModelFile {
	return slices.Concat(executableFiles(), markupFiles(), rFiles(), matlabFiles(), coremlFiles(), paddleFiles(), executorchFiles(), mxnetFiles(), parquetFiles(), archiveFiles(), secretFiles())
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

func markupFiles() []ModelFile {
	const external, include, bad = "xml.entity.external", "xml.include", "xml.malformed"
	const pmml, function, extension = "pmml", "pmml.function.unknown", "pmml.extension.code"
	doc := func(before, body string) string {
		return `<?xml version="1.0" encoding="UTF-8"?>` + before + "\n" + `<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header><Extension name="user" value="cavra"/></Header>` +
			`<DataDictionary><DataField name="x" optype="continuous" dataType="double"/></DataDictionary><TransformationDictionary>` + body + `</TransformationDictionary></PMML>`
	}
	apply := func(name string) string {
		return `<DerivedField name="d" optype="continuous" dataType="double"><Apply function="` + name + `"><FieldRef field="x"/></Apply></DerivedField>`
	}
	const openvino, custom, outside = "openvino", "openvino.op.custom", "openvino.weights.outside"
	net := func(kind, set, data string) string {
		return `<?xml version="1.0"?><net name="m" version="11"><layers><layer id="0" name="c" type="Const" version="opset1">` + data +
			`<output><port id="0" precision="FP32"><dim>2</dim></port></output></layer><layer id="1" name="r" type="` + kind + `" version="` + set + `"/></layers>` +
			`<edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges><rt_info><anything value="x"/></rt_info></net>`
	}
	const data = `<data element_type="f32" shape="2" offset="0" size="8"/>`
	return []ModelFile{
		set(predicate.Pass, pmml, "pmml: plain", doc("", apply("exp"))),
		set(predicate.Pass, pmml, "pmml: a function of its own", doc("", `<DefineFunction name="mine" optype="continuous"><ParameterField name="p"/><FieldRef field="p"/></DefineFunction>`+apply("mine"))),
		set(predicate.Warn, pmml, "pmml: a function that is a class", doc("", apply("com.example.Anything")), function),
		set(predicate.Fail, pmml, "pmml: an external entity", doc(`<!DOCTYPE PMML [<!ENTITY x SYSTEM "file:///`+inertWord+`">]>`, ""), external),
		gap(set(predicate.Fail, pmml, "pmml: an external entity that is used", doc(`<!DOCTYPE PMML [<!ENTITY x SYSTEM "file:///`+inertWord+`">]>`, "&x;"), external, bad)),
		set(predicate.Fail, pmml, "pmml: an external document type", doc(`<!DOCTYPE PMML SYSTEM "http://127.0.0.1/x.dtd">`, ""), external),
		gap(set(predicate.Warn, pmml, "pmml: entities that grow", doc(`<!DOCTYPE PMML [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>`, "&b;"), "xml.entity", bad)),
		set(predicate.Fail, pmml, "pmml: a stylesheet", doc(`<?xml-stylesheet href="x.xsl"?>`, ""), include),
		gap(set(predicate.Fail, pmml, "pmml: an inclusion", doc("", `<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///x"/>`), include)),
		set(predicate.Fail, pmml, "pmml: an extension with a program", doc("", `<Extension name="x">java.lang.Runtime</Extension>`), extension),
		gap(set(predicate.Error, pmml, "pmml: an extension of nobody", doc("", `<Extension name="x"><thing/></Extension>`))),
		gap(set(predicate.Error, pmml, "pmml: an element of nobody", doc("", `<Unheard/>`))),
		gap(set(predicate.Warn, pmml, "pmml: cut short", doc("", apply("exp"))[:300], bad)),
		gap(set(predicate.Warn, pmml, "pmml: a second document", doc("", "")+"<PMML/>", bad)),
		gap(set(predicate.Fail, "xml", "xml: an external entity", `<!DOCTYPE a [<!ENTITY x SYSTEM "file:///`+inertWord+`">]><a/>`, external)),
		set(predicate.Fail, pmml, "pmml: an external entity far from the model", `<!DOCTYPE PMML [`+strings.Repeat(`<!ENTITY a "b">`, 500)+`<!ENTITY x SYSTEM "x">]><PMML/>`, external),
		set(predicate.Pass, pmml, "pmml: a long comment before the model", `<!--`+strings.Repeat("some words ", 500)+`-->`+doc("", "")[len(`<?xml version="1.0" encoding="UTF-8"?>`):]),
		set(predicate.Pass, openvino, "openvino: plain", net("Result", "opset1", data)),
		set(predicate.Warn, openvino, "openvino: an operation of an extension", net("Anything", "extension", data), custom),
		set(predicate.Warn, openvino, "openvino: an operation of nobody", net("Anything", "opset1", data), custom),
		set(predicate.Fail, openvino, "openvino: a constant longer than its place", net("Result", "opset1", strings.Replace(data, `"2"`, `"9"`, 1)), outside),
		set(predicate.Fail, openvino, "openvino: an offset that overflows", net("Result", "opset1", strings.Replace(data, `offset="0"`, `offset="9223372036854775807"`, 1)), outside),
		set(predicate.Warn, openvino, "openvino: a shape of words", net("Result", "opset1", strings.Replace(data, `shape="2"`, `shape="a"`, 1)), "openvino.malformed"),
		gap(set(predicate.Error, openvino, "openvino: an element of nobody", strings.Replace(net("Result", "opset1", data), "<edges>", "<plugin/><edges>", 1))),
	}
}
