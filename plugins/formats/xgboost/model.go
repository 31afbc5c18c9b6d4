package xgboost

import (
	"math"
	"strconv"

	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/cursor"
)

// model checks what a tree says of itself while the text or binary is read: the
// number of nodes, the lengths of the arrays that must have as many, and the
// nodes that a node leads to. The library multiplies and indexes by them.
type model struct {
	v *content.Visit
	// twice are the keys of the objects that are open, to see one that is there
	// twice.
	open []map[string]bool
	tree *tree
	// trees counts those that were checked.
	trees int
}

type tree struct {
	at      int64
	nodes   int64
	lengths map[string]int64
	most    map[string]int64
	least   map[string]int64
}

// perNode are the arrays of a tree that have one value for each of its nodes.
var perNode = []string{"left_children", "right_children", "parents", "split_indices", "split_type", "split_conditions", "default_left"}

// isTree reports whether the path is that of one of the trees.
func isTree(path []string) bool {
	return len(path) >= 2 && path[len(path)-1] == "" && path[len(path)-2] == "trees"
}

func (m *model) enter(r *cursor.Reader, path []string) {
	m.open = append(m.open, make(map[string]bool))
	if isTree(path) {
		m.tree = &tree{at: r.At(), nodes: -1, lengths: make(map[string]int64), most: make(map[string]int64), least: make(map[string]int64)}
	}
}

func (m *model) leave(r *cursor.Reader, path []string) {
	m.open = m.open[:len(m.open)-1]
	if isTree(path) && r.Ok() {
		m.check()
	}
}

// key takes note of a key, whose value follows at an offset.
func (m *model) key(at int64, path []string, key string) {
	seen := m.open[len(m.open)-1]
	if seen[key] {
		m.v.Found(ruleDuplicate, ID, at, cursor.Clean(key))
	}
	if len(seen) < 4096 {
		seen[key] = true
	}
}

// text takes a text; the parameters of a tree are numbers spelt as text.
func (m *model) text(path []string, s string) {
	n := len(path)
	if m.tree == nil || n < 2 || path[n-2] != "tree_param" || path[n-1] != "num_nodes" {
		return
	}
	if k, err := strconv.ParseInt(s, 10, 64); err == nil {
		m.tree.nodes = k
	} else {
		m.tree.nodes = math.MinInt64
	}
}

// wants reports whether the numbers of an array are looked at one by one.
func (m *model) wants(path []string) bool {
	if m.tree == nil || len(path) < 2 || !isTree(path[:len(path)-1]) {
		return false
	}
	switch path[len(path)-1] {
	case "left_children", "right_children", "split_indices":
		return true
	}
	return false
}

func (m *model) number(path []string, n int64) {
	if len(path) < 2 || path[len(path)-1] != "" || !m.wants(path[:len(path)-1]) {
		return
	}
	name := path[len(path)-2]
	m.tree.most[name] = max(m.tree.most[name], n)
	m.tree.least[name] = min(m.tree.least[name], n)
}

func (m *model) array(path []string, n, _ int64) {
	if m.tree != nil && len(path) >= 2 && isTree(path[:len(path)-1]) {
		m.tree.lengths[path[len(path)-1]] = n
	}
}

// check holds a tree's arrays against its number of nodes.
func (m *model) check() {
	t := m.tree
	m.tree, m.trees = nil, m.trees+1
	if t.nodes < 1 || t.nodes > math.MaxInt32 {
		m.v.Found(ruleMalformed, ID, t.at, "a tree without a sound number of nodes")
		return
	}
	for _, name := range perNode {
		if n, ok := t.lengths[name]; !ok || n != t.nodes {
			m.v.Found(ruleIndex, ID, t.at, name, "not as long as the tree has nodes")
			return
		}
	}
	for _, name := range []string{"left_children", "right_children"} {
		if t.most[name] >= t.nodes || t.least[name] < -1 {
			m.v.Found(ruleIndex, ID, t.at, name, "leads out of the tree")
			return
		}
	}
	if t.least["split_indices"] < 0 && t.least["split_indices"] > math.MinInt32 {
		m.v.Found(ruleIndex, ID, t.at, "split_indices", "is negative")
	}
}
