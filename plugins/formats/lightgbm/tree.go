package lightgbm

import (
	"errors"
	"strconv"
	"strings"
)

const leadsOut = "leads out of its tree"

// tree is what has been read of one.
type tree struct {
	features int64
	leaves   int64
	cats     int64
	linear   bool
	lengths  map[string]int64
	// children holds the least and greatest of the two lists of children.
	least, most int64
}

func newTree(features int64) *tree {
	return &tree{features: features, leaves: -1, lengths: make(map[string]int64)}
}

// set reads one setting, and says what is wrong with it.
func (t *tree) set(key, value string) string {
	switch key {
	case "num_leaves", "num_cat", "is_linear":
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || n < 0 {
			return "no sound number"
		}
		switch key {
		case "num_leaves":
			t.leaves = n
		case "num_cat":
			t.cats = n
		default:
			t.linear = n != 0
		}
		return ""
	case "left_child", "right_child", "split_feature":
		return t.integers(key, value)
	case "split_gain", "threshold", "decision_type", "leaf_value", "leaf_weight", "leaf_count", "internal_value", "internal_weight", "internal_count",
		"cat_boundaries", "cat_threshold", "shrinkage", "leaf_const", "num_features", "leaf_features", "leaf_coeff", "leaf_features_inner":
		return t.numbers(key, value)
	}
	return "not known"
}

func (t *tree) numbers(key, value string) string {
	n := int64(0)
	for f := range strings.FieldsSeq(value) {
		if _, err := strconv.ParseFloat(f, 64); err != nil && !errors.Is(err, strconv.ErrRange) {
			return "no number"
		}
		n++
	}
	t.lengths[key] = n
	return ""
}

func (t *tree) integers(key, value string) string {
	n := int64(0)
	for f := range strings.FieldsSeq(value) {
		i, err := strconv.ParseInt(f, 10, 32)
		if err != nil {
			return "no integer"
		}
		if key == "split_feature" {
			if i < 0 || t.features > 0 && i >= t.features {
				return leadsOut
			}
		} else {
			t.least, t.most = min(t.least, i), max(t.most, i)
		}
		n++
	}
	t.lengths[key] = n
	return ""
}

// check holds the lists against the number of leaves.
func (t *tree) check() string {
	if t.leaves < 1 {
		return "a tree without leaves"
	}
	inner := t.leaves - 1
	for _, key := range []string{"left_child", "right_child", "split_feature", "threshold", "decision_type"} {
		if n := t.lengths[key]; n != inner {
			return key + " is not as long as the tree has nodes"
		}
	}
	if n := t.lengths["leaf_value"]; n != t.leaves {
		return "leaf_value is not as long as the tree has leaves"
	}
	if t.most >= max(inner, 1) || -t.least > t.leaves {
		return leadsOut
	}
	if t.cats > 0 && t.lengths["cat_boundaries"] != t.cats+1 {
		return "cat_boundaries is not as long as the tree has categories"
	}
	return ""
}
