package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cavra/cavra/agent"
	"github.com/cavra/cavra/agent/internal/report"
)

// leastShown is how many digits of a hash are asked for at least.
const leastShown = 8

func newResolve() *cobra.Command {
	var dirs []string
	cmd := &cobra.Command{
		Use:   "resolve [KEYED…]",
		Short: "Turn keyed names and digests back, on a machine whose agent sent them",
		Long: `Turn keyed hashes back into the names and digests that they hide, from what the
agent has written down in its folder. Without arguments it lists all. A hash may be
cut, as the aggregator's pages show it (keyed:0123456789ab). It works while the
agent runs, and changes nothing.

Exit codes: 0 all were found; 1 one at least is not known here; 2 wrong usage.`,
		Example: "  cavra resolve --dir /var/lib/cavra keyed:0123456789ab\n  cavra resolve --dir /var/lib/cavra",
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := hashes(args)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(cmd.OutOrStdout())
			err = resolve(out, dirs, wanted)
			return errors.Join(err, out.Flush())
		},
	}
	cmd.Flags().StringArrayVar(&dirs, "dir", nil, "an agent's folder; may be given again")
	// It fails only for a flag that is not there, and this one is.
	_ = cmd.MarkFlagRequired("dir")
	return cmd
}

// hashes reads what is asked for: the digits that each begins with.
func hashes(args []string) ([]string, error) {
	out := make([]string, len(args))
	for i, a := range args {
		digits := strings.TrimSuffix(a, "…")
		for _, prefix := range []string{"hmac-sha256:", "keyed:"} {
			digits = strings.TrimPrefix(digits, prefix)
		}
		if len(digits) < leastShown || strings.Trim(digits, "0123456789abcdef") != "" {
			return nil, fmt.Errorf("%q is no keyed hash: want hmac-sha256: or keyed: and %d hexadecimal digits at least", a, leastShown)
		}
		out[i] = digits
	}
	return out, nil
}

func resolve(w io.Writer, dirs, wanted []string) error {
	found, shown := map[string]bool{}, map[string]bool{}
	for _, dir := range dirs {
		err := agent.Hidden(dir, func(keyed string, plain []byte) error {
			digits := strings.TrimPrefix(keyed, "hmac-sha256:")
			show := len(wanted) == 0
			for _, begin := range wanted {
				if strings.HasPrefix(digits, begin) {
					found[begin], show = true, true
				}
			}
			if !show || shown[keyed] {
				return nil
			}
			shown[keyed] = true
			_, err := fmt.Fprintf(w, "%s\t%s\n", keyed, report.Printable(string(plain)))
			return err
		})
		if err != nil {
			return &exitError{exitFindings, err}
		}
	}
	var missing []string
	for _, begin := range wanted {
		if !found[begin] {
			missing = append(missing, begin)
		}
	}
	if len(missing) > 0 {
		return &exitError{exitFindings, fmt.Errorf("not known here: %s (ask where the agent runs that sent it)", strings.Join(missing, ", "))}
	}
	return nil
}
