package formats_test

import (
	"strings"
	"testing"

	"github.com/cavra/cavra/plugins/formats/catboost"
	"github.com/cavra/cavra/plugins/formats/lightgbm"
	"github.com/cavra/cavra/plugins/formats/msgpack"
	"github.com/cavra/cavra/plugins/formats/xgboost"
)

func FuzzXGBoostUBJSON(f *testing.F) {
	key := func(s string) string { return "L\x00\x00\x00\x00\x00\x00\x00" + string(rune(len(s))) + s }
	tree := "{" + key("left_children") + "[$l#i\x01\xff\xff\xff\xff" + key("tree_param") + "{" + key("num_nodes") + "S" + key("1") + "}}"
	fuzzFormat(f, xgboost.UBJSON{}, "{"+key("learner")+"{"+key("trees")+"["+tree+"]}}", "{"+key("learner")+"[#i\x03i\x01i\x02d0000}")
}

func FuzzXGBoostJSON(f *testing.F) {
	fuzzFormat(f, xgboost.JSON{}, `{"learner":{"trees":[{"left_children":[1,-1],"right_children":[-1,-1],"tree_param":{"num_nodes":"2"}}]}}`, `{"learner":[[[{}]]]`)
}

func FuzzLightGBM(f *testing.F) {
	fuzzFormat(f, lightgbm.Format{}, "tree\nversion=v4\nmax_feature_idx=1\ntree_sizes=9\n\nTree=0\nnum_leaves=2\nsplit_feature=0\nthreshold=1\ndecision_type=2\nleft_child=-1\nright_child=-2\n"+
		"leaf_value=1 2\n\nend of trees\n\nfeature_importances:\na=1\n\nparameters:\n[a: b]\nend of parameters\n\npandas_categorical:null\n")
}

func FuzzCatBoost(f *testing.F) {
	core := "\x0c\x00\x00\x00\x00\x00\x00\x00\x04\x00\x04\x00\x04\x00\x00\x00"
	fuzzFormat(f, catboost.Format{}, "CBM1\x10\x00\x00\x00"+core, "CBM1\x10\x00\x00\x00"+core+"\x01\x00\x00\x00\x10\x00\x00\x00"+core)
}

func FuzzMsgpack(f *testing.F) {
	fuzzFormat(f, msgpack.Format{}, "\x81\xa1w\xc7\x0d\x01\x93\x91\x01\xa5int32\xc4\x04abcd", "\x82\xa4kind\xa1O\xa4data\xc4\x04\x80\x04N.", "\x81\xa1x"+strings.Repeat("\x91", 300))
}
