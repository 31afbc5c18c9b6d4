// Command cavra-corpus writes a model tree to scan, and its manifest to standard
// output.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/cavra/cavra/testbed/corpus"
)

func main() {
	many := flag.Int("many", 0, "write so many small files in place of the fixed tree")
	seed := flag.Uint64("seed", 1, "what decides the content of -many")
	flag.Usage = func() {
		_, _ = fmt.Fprintln(flag.CommandLine.Output(), "usage: cavra-corpus [-many N [-seed S]] DIR")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 || *many < 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *many, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "cavra-corpus:", err)
		os.Exit(1)
	}
}

func run(dir string, many int, seed uint64) error {
	var m corpus.Manifest
	var err error
	if many > 0 {
		m, err = corpus.WriteMany(dir, many, seed)
	} else {
		m, err = corpus.Write(dir)
	}
	if err != nil {
		return err
	}
	return m.WriteJSON(os.Stdout)
}
