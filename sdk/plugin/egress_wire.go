package plugin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cavra/cavra/sdk/reach"
)

// The egress socket keeps the bounds of its messages. A question is eight bytes of
// number and an address; an answer is eight bytes of number, one of code, words,
// and a descriptor if the code says so.
const (
	answerGiven   = 0
	answerRefused = 1
	answerBusy    = 2
	answerFailed  = 3
	maxWords      = 512
	numberBytes   = 8
)

type answer struct {
	id   uint64
	code byte
	text string
	file *os.File
}

func (a answer) close() {
	if a.file != nil {
		_ = a.file.Close()
	}
}

// parseRequest reads a question of a plugin.
func parseRequest(b []byte) (id uint64, address string, err error) {
	if len(b) <= numberBytes || len(b) > numberBytes+reach.MaxAddress {
		return 0, "", fmt.Errorf("a question of %d bytes", len(b))
	}
	return binary.BigEndian.Uint64(b), string(b[numberBytes:]), nil
}

func readRequest(conn *net.UnixConn) (id uint64, address string, err error) {
	var b [numberBytes + reach.MaxAddress + 1]byte
	n, fds, err := readMessage(conn, b[:])
	if err != nil {
		return 0, "", err
	}
	for _, fd := range fds {
		closeFd(fd)
	}
	if len(fds) > 0 {
		return 0, "", errors.New("a question with a descriptor")
	}
	return parseRequest(b[:n])
}

func writeRequest(conn *net.UnixConn, id uint64, address string) error {
	if address == "" || len(address) > reach.MaxAddress {
		return fmt.Errorf("an address of %d bytes, at most %d", len(address), reach.MaxAddress)
	}
	_, err := conn.Write(append(binary.BigEndian.AppendUint64(nil, id), address...))
	return err
}

func writeAnswer(conn *net.UnixConn, a answer) error {
	b := append(binary.BigEndian.AppendUint64(nil, a.id), a.code)
	b = append(b, text(a.text, maxWords)...)
	var rights []byte
	if a.file != nil {
		rights = unix.UnixRights(int(a.file.Fd()))
	}
	_, _, err := conn.WriteMsgUnix(b, rights, nil)
	return err
}

func readAnswer(conn *net.UnixConn) (answer, error) {
	var b [numberBytes + 1 + maxWords + 1]byte
	n, fds, err := readMessage(conn, b[:])
	if err != nil {
		return answer{}, err
	}
	a := answer{}
	if n > numberBytes && n < len(b) {
		a = answer{id: binary.BigEndian.Uint64(b[:]), code: b[numberBytes], text: string(b[numberBytes+1 : n])}
	}
	if want := a.code == answerGiven; n <= numberBytes || n == len(b) || want != (len(fds) == 1) {
		for _, fd := range fds {
			closeFd(fd)
		}
		return answer{}, fmt.Errorf("an answer of %d bytes with %d descriptors", n, len(fds))
	}
	if len(fds) == 1 {
		a.file = os.NewFile(uintptr(fds[0]), "given")
	}
	return a, nil
}

// readMessage receives one whole message. The caller owns the descriptors.
func readMessage(conn *net.UnixConn, b []byte) (int, []int, error) {
	control := make([]byte, unix.CmsgSpace(4*4))
	n, cn, flags, _, err := conn.ReadMsgUnix(b, control)
	if err != nil {
		return 0, nil, err
	}
	fds, err := rights(control[:cn])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("a message that was cut")
	}
	if err != nil {
		for _, fd := range fds {
			closeFd(fd)
		}
		return 0, nil, err
	}
	return n, fds, nil
}
