package clickhouse

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
)

// Codes of ClickHouse exceptions that the HTTP interface raises itself or
// answers with another status than 500.
// Source: ClickHouse, src/Common/ErrorCodes.cpp.
const (
	codeNotImplemented     = 48
	codeUnknownTable       = 60
	codeSyntaxError        = 62
	codeUnknownDatabase    = 81
	codeUnknownSetting     = 115
	codeTimeout            = 159
	codeReadonly           = 164
	codeTooManyQueries     = 202
	codeNotEnoughSpace     = 243
	codeNetwork            = 210
	codeTooManyBytes       = 396
	codeQueryTooLarge      = 307
	codeAccessDenied       = 497
	codeAuthenticationFail = 516
	codeBadArguments       = 36
	codeUnknown            = 1002
)

// Exception is an error of the engine in ClickHouse's own form. A client of
// the HTTP interface sees it as a clickhouse-go *Exception.
type Exception struct {
	// Code is ClickHouse's error number; 1002 when the engine gave none.
	Code int
	// Message is the text after "DB::Exception: ".
	Message string
}

// Error is the text a ClickHouse server sends.
func (e *Exception) Error() string {
	return fmt.Sprintf("Code: %d. DB::Exception: %s", e.Code, e.Message)
}

func exceptionf(code int, format string, args ...any) *Exception {
	return &Exception{Code: code, Message: fmt.Sprintf(format, args...)}
}

var exceptionText = regexp.MustCompile(`(?s)^(?:Error: )?Code: (\d{1,9})\. (?:DB::\w*Exception: )?(.*)$`)

func parseException(text string) *Exception {
	m := exceptionText.FindStringSubmatch(text)
	if m == nil {
		return &Exception{Code: codeUnknown, Message: text}
	}
	code, err := strconv.Atoi(m[1])
	if err != nil || code <= 0 {
		code = codeUnknown
	}
	return &Exception{Code: code, Message: m[2]}
}

// status is the HTTP status that ClickHouse answers for the exception.
func (e *Exception) status() int {
	switch e.Code {
	case codeUnknownTable, codeUnknownDatabase:
		return http.StatusNotFound
	case codeSyntaxError, codeUnknownSetting, codeBadArguments:
		return http.StatusBadRequest
	case codeAccessDenied, codeAuthenticationFail:
		return http.StatusForbidden
	case codeTimeout:
		return http.StatusRequestTimeout
	case codeQueryTooLarge:
		return http.StatusRequestEntityTooLarge
	case codeNotImplemented:
		return http.StatusNotImplemented
	case codeTooManyQueries:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}
