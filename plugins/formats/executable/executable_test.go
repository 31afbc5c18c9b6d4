package executable

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cavra/cavra/plugins/formats/window"
)

func TestRead(t *testing.T) {
	zeros := func(n int) string { return strings.Repeat("\x00", n) }
	elf := "\x7fELF\x01\x02\x01" + zeros(9) + "\x00\x02\x00\x08\x00\x00\x00\x01" + zeros(16) + "\x00\x34" + zeros(20)
	for name, c := range map[string]struct {
		bytes string
		want  *Image
	}{
		"elf of 32 bits":              {elf[:40] + "\x00\x34" + zeros(20), &Image{Format: "elf", What: "mips program", Headers: 52}},
		"elf without version":         {"\x7fELF\x02\x01\x00" + zeros(60), &Image{Format: "elf", What: "elf", Headers: 64, Fault: "the identification is no valid one"}},
		"pe":                          {"MZ" + zeros(58) + "\x40\x00\x00\x00PE\x00\x00\x4c\x01" + zeros(16) + "\x00\x20\x0b\x01", &Image{Format: "pe", What: "x86 library", Headers: 88}},
		"a text that begins like one": {"MZ is the mark of " + strings.Repeat("text ", 20), nil},
		"a class":                     {"\xca\xfe\xba\xbe\x00\x03\x00\x2d" + zeros(30), &Image{Format: "java-class", What: "java class", Headers: 8, Bytecode: true}},
		"a module of Python 2":        {"\x03\xf3\r\nabcdc" + zeros(9), &Image{Format: "pyc", What: "python bytecode", Headers: 8, Bytecode: true}},
		"a number and an end of line": {"\xa7\x0d\r\n" + zeros(40), nil},
		"short":                       {"\x7fELF", nil},
	} {
		got, err := Read(window.New(strings.NewReader(c.bytes), int64(len(c.bytes))), 0)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestInterpreter(t *testing.T) {
	for line, want := range map[string]string{"#!/bin/sh\n": "sh", "#!/usr/bin/env -S python3 -u\n": "python3", "#!": ""} {
		if got := interpreter([]byte(line)); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}
