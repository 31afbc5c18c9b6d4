package formats

import (
	"slices"

	"github.com/cavra/cavra/plugins/formats/catboost"
	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/lightgbm"
	"github.com/cavra/cavra/plugins/formats/msgpack"
	"github.com/cavra/cavra/plugins/formats/skops"
	"github.com/cavra/cavra/plugins/formats/xgboost"
)

// native lists the formats that single libraries and languages have of their own;
// those that are told by the least come last.
func native() []content.Format {
	return []content.Format{
		xgboost.UBJSON{}, xgboost.JSON{}, xgboost.Binary{}, lightgbm.Format{}, catboost.Format{},
		msgpack.Format{},
	}
}

func nativeRules() []string {
	return slices.Concat(xgboost.Rules(), lightgbm.Rules(), catboost.Rules(), skops.Rules(), msgpack.Rules())
}
