package formats

import (
	"context"
	"slices"

	"github.com/cavra/cavra/plugins/formats/compressed"
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
	"github.com/cavra/cavra/plugins/formats/rar"
	"github.com/cavra/cavra/plugins/formats/rdata"
	"github.com/cavra/cavra/plugins/formats/sevenzip"
	"github.com/cavra/cavra/plugins/formats/tar"
	"github.com/cavra/cavra/plugins/formats/tensorrt"
	"github.com/cavra/cavra/plugins/formats/torchserve"
	"github.com/cavra/cavra/plugins/formats/zip"
)

// foreign lists the formats of programs, other languages and single runtimes;
// their marks tell them from all others.
func foreign() []content.Format {
	return []content.Format{
		executable.Format{}, executable.Script{Text: text().Scan, Archive: zip.Format{}.IdentifyBeside},
		pmml.Format{}, openvino.Format{}, markup.Format{}, rdata.Format{}, matlab.Format{}, coreml.Format{}, coreml.Weights{}, paddle.Format{}, paddle.Parameters{}, executorch.Format{}, mxnet.Format{}, tensorrt.Format{}, parquet.Format{Pickle: besidePickle{}},
	}
}

func foreignRules() []string {
	return slices.Concat(executable.Rules(), pmml.Rules(), openvino.Rules(), rdata.Rules(), matlab.Rules(), coreml.Rules(), paddle.Rules(), executorch.Rules(), mxnet.Rules(), tensorrt.Rules(), parquet.Rules(), torchserve.Rules())
}

// hunt looks for programs in the middle of content. Containers have theirs
// looked for in what they hold, and an engine is said to hold code.
func hunt(ctx context.Context, v *content.Visit, chosen content.Format) error {
	switch chosen.(type) {
	case executable.Format, tensorrt.Format, zip.Format, tar.Format, sevenzip.Format, rar.Format, compressed.Format:
		return nil
	}
	return executable.Hunt(ctx, v)
}
