//go:build python

package formats_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/cavra/cavra/plugins/formats"
)

// readers opens archives, one a line in hexadecimal, with zipfile and tarfile,
// and says which marks it finds in the members that they give out.
const readers = `
import sys, io, json, re, tarfile, warnings, zipfile
warnings.simplefilter("ignore")
MARK = re.compile(rb"\x80\x02cmarked\n(m\d+)\n\.")

def zips(b):
    out = []
    try:
        z = zipfile.ZipFile(io.BytesIO(b))
        for i in z.infolist():
            try:
                out += MARK.findall(z.open(i).read(1 << 20))
            except Exception:
                pass
    except Exception:
        pass
    return out

def tars(b):
    out = []
    for mode in ("r:", "r:gz", "r:bz2", "r:xz"):
        try:
            t = tarfile.open(fileobj=io.BytesIO(b), mode=mode)
            for i in t:
                try:
                    f = t.extractfile(i)
                    if f:
                        out += MARK.findall(f.read(1 << 20))
                except Exception:
                    pass
        except Exception:
            pass
    return out

for line in sys.stdin:
    b = bytes.fromhex(line.strip())
    print(json.dumps(sorted(set(m.decode() for m in zips(b) + tars(b)))), flush=True)
`

func marked(i int) string { return fmt.Sprintf("\x80\x02cmarked\nm%d\n.", i) }

// archives are what is mutated.
func archives(t *testing.T) []string {
	var plain []string
	for i := range 4 {
		plain = append(plain, fmt.Sprintf("dir/m%d", i), marked(i))
	}
	var tars []string
	for _, f := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for i := range 3 {
			data := marked(10 + i)
			err := w.WriteHeader(&tar.Header{Name: strings.Repeat("long/", 10*i) + "n" + fmt.Sprint(i), Size: int64(len(data)), Format: f, Typeflag: tar.TypeReg})
			if err == nil {
				_, err = io.WriteString(w, data)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		tars = append(tars, out.String())
	}
	zips := []string{string(archive(t, 0, plain...)), string(archive(t, 8, plain...))}
	return slices.Concat(zips, tars, []string{zips[0] + tars[0], tars[0] + zips[1], gzipped(t, tars[1]), zips[0] + zips[1]})
}

// mutate changes a few bytes, mostly to values that headers have, or cuts,
// doubles and moves pieces.
func mutate(rng *rand.Rand, s string) []byte {
	b := []byte(s)
	for range 1 + rng.IntN(4) {
		at := rng.IntN(len(b))
		switch rng.IntN(8) {
		case 0:
			b[at] = byte(rng.Uint32())
		case 1:
			b[at] = []byte{0, 1, 8, 12, 14, 0xff, '0', '5', 'x', 'S'}[rng.IntN(10)]
		case 2:
			b[at] ^= 1 << rng.IntN(8)
		case 3: // a header's field, where there is one
			if i := bytes.Index(b[at:], []byte("PK")); i >= 0 && at+i+40 < len(b) {
				b[at+i+4+rng.IntN(36)] = byte(rng.IntN(16))
			}
		case 4:
			if i := bytes.LastIndex(b[:at], []byte("PK\x05\x06")); i >= 0 && i+22 <= len(b) {
				b[i+4+rng.IntN(18)] = byte(rng.IntN(8))
			}
		case 5:
			piece := slices.Clone(b[at:min(len(b), at+rng.IntN(600))])
			b = slices.Insert(b, rng.IntN(len(b)), piece...)
		case 6:
			b = slices.Delete(b, at, min(len(b), at+rng.IntN(40)))
		case 7: // a tar header with another field and the checksum that fits
			if block := at / 512 * 512; block+512 <= len(b) {
				h := b[block : block+512]
				h[[]int{124, 130, 134, 135, 156, 156, 0, 345, 482}[rng.IntN(9)]] = []byte("0123567LKxgSX\x00\x80_ ")[rng.IntN(17)]
				copy(h[148:], "        ")
				sum := 0
				for _, c := range h {
					sum += int(c)
				}
				copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
			}
		}
		if len(b) == 0 {
			return []byte(s)
		}
	}
	return b
}

// TestPythonSeesNothingThatWeDoNot holds that what Python's own readers give out
// of a broken archive is what the scanner has scanned too.
func TestPythonSeesNothingThatWeDoNot(t *testing.T) {
	cmd := exec.Command("python3", "-c", readers)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	const seed, rounds = 9, 10_000
	rng := rand.New(rand.NewPCG(seed, 11))
	seen, missed := 0, 0
	s := formats.New()
	list := archives(t)
	for n := range rounds {
		b := mutate(rng, list[n%len(list)])
		if _, err := fmt.Fprintln(in, hex.EncodeToString(b)); err != nil {
			t.Fatal(err)
		}
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var marks []string
		if err := json.Unmarshal(line, &marks); err != nil {
			t.Fatal(err)
		}
		r := scanWith(t, s, b)
		ours := make(map[string]bool)
		for _, i := range r.Imports {
			ours[i.Name] = true
		}
		for _, m := range marks {
			seen++
			if !ours[m] {
				if missed++; missed < 8 {
					t.Errorf("round %d, archive %d: Python reads %s, the scan (%s) does not\n%x", n, n%len(list), m, brief(r), b)
				}
			}
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d archives, %d members that Python reads, %d missed", rounds, seen, missed)
}
