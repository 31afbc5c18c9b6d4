package repository

import (
	"strconv"
	"strings"
)

// tritonConfig is what of a model's configuration for Triton Inference Server
// decides what runs.
type tritonConfig struct {
	backend, file string
	// environment is the archive with the Python that the backend starts.
	environment string
	// libraries are files that the server loads into itself.
	libraries []string
}

// tritonBackends come with the server. Any other name is a library that the
// server loads.
var tritonBackends = map[string]bool{
	"": true, "onnxruntime": true, "pytorch": true, "tensorflow": true, "tensorrt": true, "openvino": true, "python": true, "dali": true, "fil": true,
	"identity": true, "repeat": true, "square": true, "tensorrtllm": true, "vllm": true, "ensemble": true,
}

// maxLibraries is how many libraries are listed.
const maxLibraries = 100

// readTriton finds the fields that matter, in any order and spelling that
// protobuf's text format has: "name: value", with either quotes, side by side
// strings being one, comments, lists, and nested messages. A field that is there
// twice has its last value, as protobuf's own reader has it where it allows that.
func readTriton(src string) tritonConfig {
	var c tritonConfig
	s := &protoText{src: src}
	var field, key, value string
	depth := 0
	for {
		kind, text := s.next()
		switch kind {
		case protoEnd:
			return c
		case protoName:
			field = text
		case protoOpen:
			if depth++; depth == 1 {
				key, value = "", ""
			}
		case protoClose:
			if depth = max(depth-1, 0); depth == 0 && key == "EXECUTION_ENV_PATH" {
				c.environment = value
			}
		case protoString:
			switch {
			case field == "op_library_filename" && len(c.libraries) < maxLibraries:
				c.libraries = append(c.libraries, text)
			case field == "key":
				key = text
			case field == "string_value":
				value = text
			case depth > 0:
			case field == "backend":
				c.backend = text
			case field == "default_model_filename":
				c.file = text
			case field == "runtime" && text != "":
				c.libraries = append(c.libraries, text)
			}
		}
	}
}

type protoKind uint8

const (
	protoEnd protoKind = iota
	protoName
	protoString
	protoOpen
	protoClose
)

// protoText goes through the tokens of protobuf's text format.
type protoText struct {
	src string
	pos int
}

func (s *protoText) next() (protoKind, string) {
	for s.pos < len(s.src) {
		at := s.pos
		switch c := s.src[s.pos]; {
		case c == '#':
			for s.pos < len(s.src) && s.src[s.pos] != '\n' {
				s.pos++
			}
		case c == '{' || c == '<':
			s.pos++
			return protoOpen, ""
		case c == '}' || c == '>':
			s.pos++
			return protoClose, ""
		case c == '"' || c == '\'':
			return protoString, s.strings()
		case c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z':
			for s.pos < len(s.src) && inName(s.src[s.pos]) {
				s.pos++
			}
			return protoName, s.src[at:s.pos]
		default:
			s.pos++
		}
	}
	return protoEnd, ""
}

func inName(c byte) bool {
	return c == '_' || c == '.' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
}

// strings reads strings side by side.
func (s *protoText) strings() string {
	var b strings.Builder
	for s.pos < len(s.src) {
		quote := s.src[s.pos]
		if quote != '"' && quote != '\'' {
			break
		}
		for s.pos++; s.pos < len(s.src) && s.src[s.pos] != quote; {
			if s.src[s.pos] == '\\' {
				n, r := protoEscape(s.src[s.pos:])
				b.WriteString(r)
				s.pos += n
				continue
			}
			b.WriteByte(s.src[s.pos])
			s.pos++
		}
		s.pos = min(s.pos+1, len(s.src))
		rest := strings.TrimLeft(s.src[s.pos:], " \t\r\n")
		for strings.HasPrefix(rest, "#") {
			_, rest, _ = strings.Cut(rest, "\n")
			rest = strings.TrimLeft(rest, " \t\r\n")
		}
		if rest != "" && (rest[0] == '"' || rest[0] == '\'') {
			s.pos = len(s.src) - len(rest)
		}
	}
	return b.String()
}

// protoEscape reads an escape of the text format: octal, hexadecimal, a code
// point, or a character that stands for itself.
func protoEscape(s string) (int, string) {
	if len(s) > 1 && s[1]|0x20 == 'u' {
		return yamlEscape(s) // the same four or eight digits
	}
	n, base := 1, 8
	digits := "01234567"
	most := 4
	if len(s) > 1 && s[1]|0x20 == 'x' {
		n, base, digits, most = 2, 16, "0123456789abcdefABCDEF", 4
	}
	from := n
	for n < len(s) && n < most && strings.IndexByte(digits, s[n]) >= 0 {
		n++
	}
	if v, err := strconv.ParseUint(s[from:n], base, 16); err == nil {
		return n, string([]byte{byte(v)})
	}
	return min(2, len(s)), s[min(1, len(s)):min(2, len(s))]
}
