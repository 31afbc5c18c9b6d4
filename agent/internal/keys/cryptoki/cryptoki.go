//go:build linux && (amd64 || arm64)

// Package cryptoki binds the C interface of PKCS #11 (OASIS PKCS #11 2.40, "the
// Cryptoki API") as far as signing with one key needs it, without a C compiler.
// It loads a vendor's library into this process, so only the program
// cavra-pkcs11 imports it.
package cryptoki

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// The constants of the standard that are used (pkcs11t.h).
const (
	ckrOK = 0

	ckfSerialSession = 1 << 2
	ckuUser          = 1

	ckoPublicKey  = 2
	ckoPrivateKey = 3

	ckaClass    = 0x000
	ckaLabel    = 0x003
	ckaID       = 0x102
	ckaECParams = 0x180
	ckaECPoint  = 0x181

	ckmECDSA = 0x1041

	maxSlots     = 64
	maxAttribute = 1 << 10
	labelBytes   = 32
	digestBytes  = 32
	pointBytes   = 65
)

// p256 is the DER of the object identifier of the curve P-256 (RFC 5480).
var p256 = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}

// The structures of the interface on Linux, where CK_ULONG has 64 bits and
// nothing is packed.
type (
	ckAttribute struct {
		kind  uint64
		value unsafe.Pointer
		size  uint64
	}
	ckMechanism struct {
		kind      uint64
		parameter unsafe.Pointer
		size      uint64
	}
	ckTokenInfo struct {
		label        [labelBytes]byte
		manufacturer [32]byte
		model        [16]byte
		serial       [16]byte
		flags        uint64
		counts       [10]uint64
		versions     [4]byte
		utcTime      [16]byte
	}
)

// The places of functions in CK_FUNCTION_LIST, after its version.
const (
	atInitialize       = 0
	atFinalize         = 1
	atGetSlotList      = 4
	atGetTokenInfo     = 6
	atOpenSession      = 12
	atCloseSession     = 13
	atLogin            = 18
	atGetAttribute     = 24
	atFindObjectsInit  = 26
	atFindObjects      = 27
	atFindObjectsFinal = 28
	atSignInit         = 42
	atSign             = 43
	functionsUsed      = 44
)

// Module is a loaded library. It is used by one goroutine, locked to its thread.
type Module struct {
	initialize       func(args unsafe.Pointer) uint64
	finalize         func(reserved unsafe.Pointer) uint64
	getSlotList      func(present byte, slots, count unsafe.Pointer) uint64
	getTokenInfo     func(slot uint64, info unsafe.Pointer) uint64
	openSession      func(slot, flags uint64, application, notify, session unsafe.Pointer) uint64
	closeSession     func(session uint64) uint64
	login            func(session, user uint64, pin unsafe.Pointer, size uint64) uint64
	getAttribute     func(session, object uint64, template unsafe.Pointer, count uint64) uint64
	findObjectsInit  func(session uint64, template unsafe.Pointer, count uint64) uint64
	findObjects      func(session uint64, objects unsafe.Pointer, most uint64, count unsafe.Pointer) uint64
	findObjectsFinal func(session uint64) uint64
	signInit         func(session uint64, mechanism unsafe.Pointer, key uint64) uint64
	sign             func(session uint64, data unsafe.Pointer, size uint64, signature, signatureSize unsafe.Pointer) uint64
}

// Load loads a library and initializes it.
func Load(path string) (*Module, error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load PKCS #11 library: %w", err)
	}
	symbol, err := purego.Dlsym(handle, "C_GetFunctionList")
	if err != nil {
		return nil, fmt.Errorf("load PKCS #11 library %s: it has no C_GetFunctionList: %w", path, err)
	}
	var getFunctionList func(list unsafe.Pointer) uint64
	purego.RegisterFunc(&getFunctionList, symbol)
	var list *struct {
		version   [8]byte
		functions [functionsUsed]uintptr
	}
	if err := check("C_GetFunctionList", getFunctionList(unsafe.Pointer(&list))); err != nil {
		return nil, err
	}
	if list == nil || list.version[0] < 2 {
		return nil, fmt.Errorf("load PKCS #11 library %s: want version 2 of the interface or later", path)
	}
	m := &Module{}
	for at, function := range map[int]any{
		atInitialize: &m.initialize, atFinalize: &m.finalize, atGetSlotList: &m.getSlotList, atGetTokenInfo: &m.getTokenInfo,
		atOpenSession: &m.openSession, atCloseSession: &m.closeSession, atLogin: &m.login, atGetAttribute: &m.getAttribute,
		atFindObjectsInit: &m.findObjectsInit, atFindObjects: &m.findObjects, atFindObjectsFinal: &m.findObjectsFinal,
		atSignInit: &m.signInit, atSign: &m.sign,
	} {
		if list.functions[at] == 0 {
			return nil, fmt.Errorf("load PKCS #11 library %s: function %d of the interface is missing", path, at)
		}
		purego.RegisterFunc(function, list.functions[at])
	}
	return m, check("C_Initialize", m.initialize(nil))
}

// Close ends the library's work.
func (m *Module) Close() error { return check("C_Finalize", m.finalize(nil)) }

// Error is what a library answered.
type Error struct {
	Function string
	// Code is a CKR_ value of the standard.
	Code uint64
}

func (e *Error) Error() string {
	words := map[uint64]string{
		0x05: "general error", 0x30: "device error", 0x32: "device removed", 0xa0: "the PIN is wrong", 0xa2: "the PIN's length is out of range",
		0xa4: "the PIN is locked", 0xe0: "no token in the slot", 0x70: "the token cannot sign with ECDSA", 0x68: "the key may not be used to sign",
	}
	if w := words[e.Code]; w != "" {
		return fmt.Sprintf("%s: %s (0x%x)", e.Function, w, e.Code)
	}
	return fmt.Sprintf("%s: error 0x%x of PKCS #11", e.Function, e.Code)
}

func check(function string, code uint64) error {
	if code == ckrOK {
		return nil
	}
	return &Error{Function: function, Code: code}
}

// Slot finds the one slot whose token has the label and the serial number; an
// empty one is any.
func (m *Module) Slot(label, serial string) (uint64, error) {
	var slots [maxSlots]uint64
	count := uint64(maxSlots)
	if err := check("C_GetSlotList", m.getSlotList(1, unsafe.Pointer(&slots), unsafe.Pointer(&count))); err != nil {
		return 0, err
	}
	var found []uint64
	for _, slot := range slots[:min(count, maxSlots)] {
		var info ckTokenInfo
		if err := check("C_GetTokenInfo", m.getTokenInfo(slot, unsafe.Pointer(&info))); err != nil {
			return 0, err
		}
		if matches(label, info.label[:]) && matches(serial, info.serial[:]) {
			found = append(found, slot)
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%d tokens match token=%q serial=%q: want one", len(found), label, serial)
	}
	return found[0], nil
}

// matches compares a name with a field that is padded with blanks.
func matches(want string, field []byte) bool {
	return want == "" || want == strings.TrimRight(string(field), " \x00")
}

// Session is an open session of a user.
type Session struct {
	m  *Module
	id uint64
}

// Open opens a session and logs in.
func (m *Module) Open(slot uint64, pin string) (*Session, error) {
	s := &Session{m: m}
	if err := check("C_OpenSession", m.openSession(slot, ckfSerialSession, nil, nil, unsafe.Pointer(&s.id))); err != nil {
		return nil, err
	}
	b := append([]byte(pin), 0)
	if err := check("C_Login", m.login(s.id, ckuUser, unsafe.Pointer(&b[0]), uint64(len(pin)))); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends the session, and with it the login.
func (s *Session) Close() error { return check("C_CloseSession", s.m.closeSession(s.id)) }

// find returns the one object of a class with the label and identifier; an empty
// one is any.
func (s *Session) find(class uint64, label, id string) (uint64, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&class)
	template := []ckAttribute{{ckaClass, unsafe.Pointer(&class), 8}}
	for kind, value := range map[uint64]string{ckaLabel: label, ckaID: id} {
		if value != "" {
			b := []byte(value)
			pin.Pin(&b[0])
			template = append(template, ckAttribute{kind, unsafe.Pointer(&b[0]), uint64(len(b))})
		}
	}
	if err := check("C_FindObjectsInit", s.m.findObjectsInit(s.id, unsafe.Pointer(&template[0]), uint64(len(template)))); err != nil {
		return 0, err
	}
	var objects [2]uint64
	var count uint64
	err := check("C_FindObjects", s.m.findObjects(s.id, unsafe.Pointer(&objects), uint64(len(objects)), unsafe.Pointer(&count)))
	if err = errors.Join(err, check("C_FindObjectsFinal", s.m.findObjectsFinal(s.id))); err != nil {
		return 0, err
	}
	if count != 1 {
		what := "private"
		if class == ckoPublicKey {
			what = "public"
		}
		return 0, fmt.Errorf("%d or more %s keys match object=%q id=%x: want one", count, what, label, id)
	}
	return objects[0], nil
}

func (s *Session) attribute(object, kind uint64) ([]byte, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	value := make([]byte, maxAttribute)
	pin.Pin(&value[0])
	a := ckAttribute{kind, unsafe.Pointer(&value[0]), maxAttribute}
	if err := check("C_GetAttributeValue", s.m.getAttribute(s.id, object, unsafe.Pointer(&a), 1)); err != nil {
		return nil, err
	}
	if a.size > maxAttribute {
		return nil, fmt.Errorf("attribute 0x%x has %d bytes, at most %d", kind, a.size, maxAttribute)
	}
	return value[:a.size], nil
}

// Public returns a public key on P-256 as an uncompressed point (SEC 1, 2.3.3).
func (s *Session) Public(label, id string) ([]byte, error) {
	object, err := s.find(ckoPublicKey, label, id)
	if err != nil {
		return nil, err
	}
	params, err := s.attribute(object, ckaECParams)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(params, p256) {
		return nil, fmt.Errorf("the key %q is not on P-256", label)
	}
	b, err := s.attribute(object, ckaECPoint)
	if err != nil {
		return nil, err
	}
	// The standard wants an OCTET STRING around the point; some tokens leave it
	// out.
	if len(b) == pointBytes {
		return b, nil
	}
	var point []byte
	if rest, err := asn1.Unmarshal(b, &point); err != nil || len(rest) > 0 || len(point) != pointBytes {
		return nil, errors.New("the key's point is not one on P-256")
	}
	return point, nil
}

// Sign signs a SHA-256 with a private key on P-256, and returns the signature in
// ASN.1 DER.
func (s *Session) Sign(label, id string, digest []byte) ([]byte, error) {
	if len(digest) != digestBytes {
		return nil, fmt.Errorf("a digest of %d bytes: want %d", len(digest), digestBytes)
	}
	object, err := s.find(ckoPrivateKey, label, id)
	if err != nil {
		return nil, err
	}
	mechanism := ckMechanism{kind: ckmECDSA}
	if err := check("C_SignInit", s.m.signInit(s.id, unsafe.Pointer(&mechanism), object)); err != nil {
		return nil, err
	}
	raw := make([]byte, maxAttribute)
	size := uint64(len(raw))
	if err := check("C_Sign", s.m.sign(s.id, unsafe.Pointer(&digest[0]), uint64(len(digest)), unsafe.Pointer(&raw[0]), unsafe.Pointer(&size))); err != nil {
		return nil, err
	}
	if size != 2*digestBytes {
		return nil, fmt.Errorf("C_Sign: a signature of %d bytes: want %d", size, 2*digestBytes)
	}
	return asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(raw[:digestBytes]), new(big.Int).SetBytes(raw[digestBytes : 2*digestBytes]),
	})
}
