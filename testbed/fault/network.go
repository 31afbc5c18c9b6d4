package fault

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"github.com/cavra/cavra/testbed/wire"
)

// Network drops what goes to, or comes from, a TCP port of the namespace. It is
// done by rules of the routing policy: a packet that no route is found for is lost,
// and what is connected stays so and sends it again.
type Network struct{}

// Direction is which packets are lost.
type Direction string

// The directions.
const (
	// Requests are those to the port, Answers those from it.
	Requests Direction = "dport"
	Answers  Direction = "sport"
)

// ErrNoRules says that this machine has no program to set routing rules with.
var ErrNoRules = errors.New("no program ip here (Debian's package iproute2)")

// NewNetwork makes room for rules before the one that finds what is local.
func NewNetwork() (*Network, error) {
	if os.Getenv(wire.Namespace) == "" {
		return nil, errOutside
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, ErrNoRules
	}
	return &Network{}, errors.Join(rule("add", "pref", "100", "lookup", "local"), rule("del", "pref", "0"))
}

// Drop loses the packets of one direction until Mend.
func (*Network) Drop(port int, d Direction) error { return dropping("add", port, d) }

// Mend lets them through again.
func (*Network) Mend(port int, d Direction) error { return dropping("del", port, d) }

func dropping(do string, port int, d Direction) error {
	return rule(do, "pref", "10", "ipproto", "tcp", string(d), strconv.Itoa(port), "blackhole")
}

func rule(args ...string) error {
	out, err := exec.Command("ip", append([]string{"rule"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip rule %v: %w: %s", args, err, out)
	}
	return nil
}
