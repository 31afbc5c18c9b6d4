package formats_test

import (
	"context"
	"strings"
	"testing"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/coreml"
	"github.com/cavra/cavra/plugins/formats/executable"
	"github.com/cavra/cavra/plugins/formats/executorch"
	"github.com/cavra/cavra/plugins/formats/markup"
	"github.com/cavra/cavra/plugins/formats/matlab"
	"github.com/cavra/cavra/plugins/formats/mxnet"
	"github.com/cavra/cavra/plugins/formats/openvino"
	"github.com/cavra/cavra/plugins/formats/paddle"
	"github.com/cavra/cavra/plugins/formats/parquet"
	"github.com/cavra/cavra/plugins/formats/pmml"
	"github.com/cavra/cavra/plugins/formats/rdata"
	"github.com/cavra/cavra/plugins/formats/tensorrt"
)

// hunted is any content in which programs are looked for.
type hunted struct{}

func (hunted) Identify(context.Context, *content.Visit) (bool, error) { return true, nil }
func (hunted) Scan(ctx context.Context, v *content.Visit) error       { return executable.Hunt(ctx, v) }

var programs = []string{
	"\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x03\x00\x3e\x00\x01\x00\x00\x00" + strings.Repeat("\x00", 28) + "\x40\x00" + strings.Repeat("\x00", 10),
	"MZ" + strings.Repeat("\x00", 58) + "\x40\x00\x00\x00PE\x00\x00\x64\x86" + strings.Repeat("\x00", 18) + "\x0b\x02",
	"\xcf\xfa\xed\xfe\x07\x00\x00\x01" + strings.Repeat("\x00", 4) + "\x06" + strings.Repeat("\x00", 40),
	"\xca\xfe\xba\xbe\x00\x00\x00\x02\x01\x00\x00\x07" + strings.Repeat("\x00", 40), "\x00asm\x01\x00\x00\x00",
}

func FuzzExecutable(f *testing.F) { fuzzFormat(f, executable.Format{}, programs...) }

func FuzzEmbedded(f *testing.F) {
	seeds := []string{"PE\x00\x00\x64\x86"}
	for _, p := range programs {
		seeds = append(seeds, "before"+p)
	}
	fuzzFormat(f, hunted{}, seeds...)
}

func FuzzPMML(f *testing.F) {
	fuzzFormat(f, pmml.Format{}, `<?xml version="1.0"?><PMML version="4.4"><Extension name="x">y</Extension><Apply function="f"/></PMML>`,
		`<!DOCTYPE PMML [<!ENTITY x SYSTEM "f">]><PMML>&x;</PMML>`, `<PMML><row><a>1</a></row></PMML>`)
}

func FuzzMarkup(f *testing.F) {
	fuzzFormat(f, markup.Format{}, `<!DOCTYPE a [<!ENTITY x SYSTEM "f">]><a>&x;</a>`, `<?xml version="1.0"?><!DOCTYPE a SYSTEM "b"><a/>`)
}

func FuzzOpenVINO(f *testing.F) {
	fuzzFormat(f, openvino.Format{}, `<net name="m" version="11"><layers><layer type="Const" version="opset1"><data element_type="f32" shape="2" offset="0" size="8"/></layer></layers><rt_info><x/></rt_info></net>`)
}

func FuzzR(f *testing.F) {
	const head = "X\n\x00\x00\x00\x02\x00\x04\x02\x02\x00\x02\x03\x00"
	fuzzFormat(f, rdata.Format{}, head+"\x00\x00\x00\x13\x00\x00\x00\x01\x00\x00\x00\xfe", head+"\x00\x00\x04\x05\x00\x00\x00\xfd\x00\x00\x00\xfc\x00\x00\x00\x01\x00\x04\x00\x09\x00\x00\x00\x01x",
		head+"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\xfd\x00\x00\x00\x13\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\xfe\x00\x00\x00\xfe\x00\x00\x00\xfe\x00\x00\x00\xfe",
		head+"\x00\x00\x00\x15\x00\x00\x00\x00\x00\x00\x00\x0d\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\xf4\x00\x00\x00\x00\x00\x00\x00\x06", "A\n2\n262658\n131840\n16\n1\n262153\n2\na\\n\n")
}

func FuzzMatlab(f *testing.F) {
	head := strings.Repeat(" ", 116) + strings.Repeat("\x00", 8) + "\x00\x01IM"
	array := "\x0e\x00\x00\x00\x38\x00\x00\x00\x06\x00\x00\x00\x08\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x01\x00w\x00\x00\x00\x09\x00\x00\x00\x08\x00\x00\x0012345678"
	fuzzFormat(f, matlab.Format{}, head+array, head+strings.Replace(array, "\x06\x00\x00\x00\x00", "\x11\x00\x00\x00\x00", 1), head+strings.Replace(array, "\x06\x00\x00\x00\x00", "\x02\x00\x00\x00\x00", 1), head+"\x0f\x00\x00\x00\x02\x00\x00\x00\x78\x9c")
}

func FuzzCoreML(f *testing.F) {
	fuzzFormat(f, coreml.Format{}, "\x08\x06\x12\x00\xa2\x1f\x02\x0a\x00", "\x08\x06\x12\x00\xda\x22\x03\x52\x01x", "\x08\x06\x12\x00\xb2\x1f\x04\x08\x01\x12\x00")
}

func FuzzCoreMLWeights(f *testing.F) {
	pad := strings.Repeat("\x00", 56)
	fuzzFormat(f, coreml.Weights{}, "\x01\x00\x00\x00\x02\x00\x00\x00"+pad+"\xef\xbe\xad\xde\x01\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00"+pad[:40]+"ab")
}

func FuzzPaddle(f *testing.F) {
	fuzzFormat(f, paddle.Format{}, "\x0a\x0c\x08\x00\x10\x00\x22\x06\x1a\x04relu\x22\x02\x08\x00", "\x0a\x04\x08\x00\x10\x00\x0a\x04\x08\x00\x10\x00")
}

func FuzzPaddleParameters(f *testing.F) {
	head := strings.Repeat("\x00", 16) + "\x04\x00\x00\x00\x08\x05\x10\x01"
	fuzzFormat(f, paddle.Parameters{}, head+"abcd", head+"abcd"+head+"abcdefgh", "\x00\x00\x00\x00\x01"+strings.Repeat("\x00", 7)+"\x08"+strings.Repeat("\x00", 19)+"\x04\x00\x00\x00\x08\x05\x10\x01abcd")
}

func FuzzExecuTorch(f *testing.F) {
	table := "\x08\x00\x00\x00ET12" + "\x04\x00\x04\x00\x04\x00\x00\x00"
	fuzzFormat(f, executorch.Format{}, "\x0c"+table[1:], "\x24\x00\x00\x00ET12eh00\x18\x00\x00\x00\x30\x00\x00\x00\x00\x00\x00\x00\x30\x00\x00\x00\x00\x00\x00\x00"+"\x04\x00\x04\x00\x04\x00\x00\x00\x00\x00\x00\x00")
}

func FuzzMXNet(f *testing.F) {
	head := "\x12\x01" + strings.Repeat("\x00", 14) + "\x01" + strings.Repeat("\x00", 7)
	fuzzFormat(f, mxnet.Format{}, head+"\xc9\xfa\x93\xf9\x00\x00\x00\x00\x01\x00\x00\x00\x01"+strings.Repeat("\x00", 19)+"abcd\x01"+strings.Repeat("\x00", 7)+"\x01"+strings.Repeat("\x00", 7)+"w")
}

func FuzzTensorRT(f *testing.F) {
	fuzzFormat(f, tensorrt.Format{}, "ftrt"+strings.Repeat("\x00", 20), "\x02\x00\x00\x00{}ftrt"+strings.Repeat("\x00", 20))
}

func FuzzParquet(f *testing.F) {
	page := "\x15\x00\x15\x10\x15\x10\x2c\x15\x02\x15\x00\x00\x00" + "\x04\x00\x00\x00\x80\x02N."
	footer := "\x49\x1c\x19\x1c\x3c\x15\x0c\x35\x00\x36\x2a\x26\x08\x00\x00\x00\x00"
	fuzzFormat(f, parquet.Format{}, "PAR1"+page+footer+"\x11\x00\x00\x00PAR1", "PAR1\x00\x01\x00\x00\x00PAR1")
}
