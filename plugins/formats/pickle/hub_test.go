package pickle

import (
	"encoding/csv"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cavra/cavra/schemas/predicate"
)

// hubImports are the names that the pickles of 1,584 public models import, with
// the number of models of each. The file lies beside the checkout.
const hubImports = "../../../../shared/data/hub_pickle_imports.csv"

// The most that may be failed and warned of, in hundredths of the models counted
// over all names.
const (
	maxFailed = 1
	maxWarned = 3
)

func readHub(t *testing.T) [][]string {
	t.Helper()
	f, err := os.Open(filepath.FromSlash(hubImports))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("%s is not beside the checkout", hubImports)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comment = '#'
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows[1:]
}

// plausible is a stream that uses a name as picklers do.
func plausible(module, name string) string {
	g := "c" + module + "\n" + name + "\n"
	word := func(s string) string { return "X" + le32(uint32(len(s))) + s }
	storage := "(" + word("storage") + "ctorch\nFloatStorage\n" + word("0") + word("cpu") + "K\x04tQ"
	tensor := "ctorch._utils\n_rebuild_tensor_v2\n(" + storage + "K\x00K\x04\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
	ordered := "ccollections\nOrderedDict\n)R"
	bytes := "c_codecs\nencode\n" + word("b") + word("latin1") + "\x86R"
	calls := map[string]string{
		"torch._utils _rebuild_tensor_v2": "(" + storage + "K\x00K\x04\x85K\x01\x85\x89" + ordered + "tR", "torch._utils _rebuild_tensor_v3": "(" + storage + "K\x00K\x04\x85K\x01\x85\x89" + ordered + "ctorch\nfloat32\ntR",
		"torch._utils _rebuild_parameter": tensor + "\x88" + ordered + "\x87R", "torch._tensor _rebuild_from_type_v2": "(ctorch._utils\n_rebuild_tensor_v2\nctorch\nTensor\n(" + storage + "K\x00K\x04\x85K\x01\x85\x89" + ordered + "t}tR",
		"torch device": word("cpu") + "\x85R", "torch Size": "(K\x01K\x02t\x85R", "_codecs encode": word("a") + word("latin1") + "\x86R",
		"numpy dtype":                        word("f4") + "\x89\x88\x87R(K\x03" + word("<") + "NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
		"numpy.core.multiarray _reconstruct": "cnumpy\nndarray\nK\x00\x85" + bytes + "\x87R(K\x01K\x00\x85cnumpy\ndtype\n" + word("f4") + "\x89\x88\x87R\x89" + bytes + "tb",
		"numpy.core.multiarray scalar":       "cnumpy\ndtype\n" + word("f4") + "\x89\x88\x87R" + bytes + "\x86R",
		"collections OrderedDict":            ")R(" + word("k") + "K\x01u", "collections defaultdict": "c__builtin__\nlist\n\x85R", "_io BytesIO": ")R",
		"torch.storage UntypedStorage": "", "typing Any": "", "dill._dill _load_type": word("CodeType") + "\x85R",
	}
	enums := " SchedulerType IntervalStrategy HubStrategy OptimizerNames EvaluationStrategy DistributedType FSDPOption Problem Resolution EntityTypeTaskPromptAugmentationStrategy "
	switch use, known := calls[module+" "+name]; {
	case known:
		g += use
	case strings.Contains(enums, " "+name+" "):
		g += word("steps") + "\x85R"
	case strings.HasSuffix(name, "Storage"):
		g = "(" + word("storage") + g + word("0") + word("cpu") + "K\x04tQ"
	case module == "torch" && strings.ToLower(name) == name, module == "numpy":
	case module == "torch" || module == "torch._C":
	default:
		g += ")\x81}(" + word("a") + "K\x01ub"
	}
	return "\x80\x02" + g + "."
}

// TestHubImports replays what public models import. Every name that is failed
// or warned of is printed.
func TestHubImports(t *testing.T) {
	table, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	total, failed, warned, tail, names := 0, 0, 0, 0, 0
	for _, row := range readHub(t) {
		n, err := strconv.Atoi(row[2])
		if err != nil {
			t.Fatal(err)
		}
		total += n
		names++
		r := resolve(t, plausible(row[0], row[1]))
		if r.Broken != nil || !contains(r, row[0], row[1]) {
			t.Errorf("%s.%s: the replay is no plausible stream: %q", row[0], row[1], brief(r))
		}
		switch verdictOf(table, r) {
		case predicate.Fail:
			failed += n
			tail++
			t.Logf("fail %4d %s.%s", n, row[0], row[1])
		case predicate.Warn:
			warned += n
			tail++
			if !strings.HasPrefix(row[0], "__torch__.") {
				t.Logf("warn %4d %s.%s %q", n, row[0], row[1], brief(r))
			}
		}
	}
	t.Logf("%d names, %d imports: %.2f %% failed, %.2f %% warned; not weighted, %d of the names", names, total,
		100*float64(failed)/float64(total), 100*float64(warned)/float64(total), tail)
	if failed*100 > total*maxFailed || warned*100 > total*maxWarned {
		t.Errorf("%d failed and %d warned of %d", failed, warned, total)
	}
}

func contains(r *Resolution, module, name string) bool {
	for _, i := range r.Imports {
		if i.Module == module && i.Name == name {
			return true
		}
	}
	return false
}

// verdictOf is what a resolution amounts to.
func verdictOf(table *Table, r *Resolution) predicate.Verdict {
	worst := predicate.Pass
	for _, i := range r.Imports {
		switch j := table.Judge(i.Module, i.Name); {
		case j.Judged == predicate.JudgedDangerous:
			return predicate.Fail
		case j.Judged == predicate.JudgedUnknown || i.Misused != "":
			worst = predicate.Warn
		}
	}
	for _, e := range r.Events {
		if e.Kind == Malformed || e.Kind == Extension || e.Kind == Limited {
			worst = predicate.Warn
			continue
		}
		return predicate.Fail
	}
	return worst
}
