package formats_test

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/cavra/cavra/sdk/coverage"
	"github.com/cavra/cavra/sdk/scanner"

	"github.com/cavra/cavra/plugins/formats/compressed"
	"github.com/cavra/cavra/plugins/formats/content"
	"github.com/cavra/cavra/plugins/formats/rar"
	"github.com/cavra/cavra/plugins/formats/sevenzip"
	"github.com/cavra/cavra/plugins/formats/tar"
	"github.com/cavra/cavra/plugins/formats/zip"
)

// taken is an opener that takes all content as parsed, so that a fuzzer's time
// goes into the container.
type taken struct{}

func (taken) Open(_ context.Context, v *content.Visit) error {
	v.Format = "taken"
	v.Parsed(0, v.Size)
	return nil
}

// fuzzFormat holds the laws of one container: no error on any bytes, findings
// within bounds, ranges that fit, and nothing that is found is complete without
// a word.
func fuzzFormat(f *testing.F, format content.Format, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	l := content.DefaultLimits()
	l.Inflated, l.InflatedPerByte, l.Held, l.Members = 1<<19, 0, 1<<18, 200
	f.Fuzz(func(t *testing.T, b []byte) {
		var report scanner.Report
		v, err := content.NewVisit(bytes.NewReader(b), int64(len(b)), &report, content.NewBudget(l), taken{})
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := format.Identify(context.Background(), v); err != nil {
			t.Fatal(err)
		} else if !ok {
			return
		}
		if err := format.Scan(context.Background(), v); err != nil {
			t.Fatal(err)
		}
		for _, x := range report.Findings {
			if err := x.Validate(); err != nil {
				t.Error(err)
			}
		}
		account, err := coverage.Account(v.Claims(), v.Size)
		if err != nil {
			t.Fatal(err)
		}
		if total := coverage.Sum(account); total.Bytes != v.Size {
			t.Errorf("%d bytes accounted for, of %d", total.Bytes, v.Size)
		}
	})
}

func FuzzTar(f *testing.F) {
	end := strings.Repeat("\x00", 1024)
	fuzzFormat(f, tar.Format{}, tarFile("x", prose)+end, paxOf("size", "512")+tarFile("x", "")+end, paxOf("GNU.sparse.map", "0,1")+tarFile("x", "y"),
		tarHeader("s", 'S', 4, "386", fmt.Sprintf("%011o\x00%011o\x00", 0, 4), "483", fmt.Sprintf("%011o\x00", 9))+padded("abcd")+end,
		tarHeader("L", 'L', 5)+padded("../x\x00")+tarFile("y", prose))
}

func FuzzZip(f *testing.F) {
	fuzzFormat(f, zip.Format{}, string(archive(f, 8, "m/data.pkl", evil, "x/", "", "m/data/0", "0123")), string(archive(f, 0, "a", prose, "a", prose)),
		string(archive(f, 0, "a", prose))[:60])
}

func FuzzSevenZip(f *testing.F) {
	fuzzFormat(f, sevenzip.Format{}, sevenZip("\x01\x04\x06\x00\x01\x09\x04\x00\x07\x0b\x01\x00\x01\x01\x00\x0c\x04\x00\x00\x05\x01\x11\x05\x00x\x00\x00\x00\x00\x00", "data"),
		sevenZip("\x17\x06\x00\x01\x09\x04\x00\x07\x0b\x01\x00\x01\x21\x21\x01\x00\x0c\x04\x00\x00", "data"),
		sevenZip("\x01\x04\x06\x00\x01\x09\x04\x00\x07\x0b\x01\x00\x01\x23\x03\x01\x01\x05\x5d\x00\x10\x00\x00\x0c\x04\x00\x08\x0d\x02\x09\x01\x00\x00\x00", "data"))
}

// sevenZip puts a header behind data, with the sums that it needs.
func sevenZip(header, data string) string {
	le64 := func(n int) string { return le32(n) + le32(0) }
	start := le64(len(data)) + le64(len(header)) + le32(int(crc32.ChecksumIEEE([]byte(header))))
	return "7z\xbc\xaf\x27\x1c\x00\x04" + le32(int(crc32.ChecksumIEEE([]byte(start)))) + start + data + header
}

func FuzzRar(f *testing.F) {
	fuzzFormat(f, rar.Format{}, "Rar!\x1a\x07\x01\x00abcd\x03\x01\x00\x00abcd\x0b\x02\x02\x04\x00\x04\x00\x00\x01\x01xdataabcd\x03\x05\x00\x00",
		"Rar!\x1a\x07\x00\x00\x00\x73\x00\x00\x0d\x00\x00\x00\x00\x00\x00\x00\x00\x00\x74\x00\x80\x21\x00\x04\x00\x00\x00\x04\x00\x00\x00\x03abcdabcd\x14\x30\x01\x00abcdxdata")
}

func FuzzCompressed(f *testing.F) {
	var seeds []string
	for _, c := range compressions {
		seeds = append(seeds, c.compress(f, prose), c.compress(f, evil)+evil)
	}
	fuzzFormat(f, anyOf(compressed.Formats()), seeds...)
}

// anyOf is the first of several formats that identifies the content.
type anyOf []compressed.Format

func (a anyOf) Identify(ctx context.Context, v *content.Visit) (bool, error) {
	for _, f := range a {
		if ok, err := f.Identify(ctx, v); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (a anyOf) Scan(ctx context.Context, v *content.Visit) error {
	for _, f := range a {
		if ok, err := f.Identify(ctx, v); err != nil {
			return err
		} else if ok {
			return f.Scan(ctx, v)
		}
	}
	return nil
}
