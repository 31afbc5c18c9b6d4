package web

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/cavra/cavra/aggregator/internal/access"
)

// loginBody is the body of the page "login".
type loginBody struct{ Problem string }

func (s *site) loginForm(w http.ResponseWriter, r *http.Request) {
	s.render(w, r, "login", view{Title: "Log in", Next: local(r.URL.Query().Get("next")), Body: loginBody{}})
}

// login exchanges a token for a session. The token comes in the form's body and
// is never shown again.
func (s *site) login(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, nil, http.StatusBadRequest, "The form could not be read. Open the login page and try again.")
		return
	}
	next := local(r.PostForm.Get("next"))
	cookie, err := s.cfg.Gate.Login(r.Context(), remote(r), strings.TrimSpace(r.PostForm.Get("token")))
	again := view{Title: "Log in", Next: next, Status: http.StatusUnauthorized}
	switch {
	case errors.Is(err, access.ErrTooManyFailures):
		w.Header().Set("Retry-After", "60")
		again.Status, again.Body = http.StatusTooManyRequests, loginBody{"Too many failed logins came from your address. Wait a minute and try again."}
	case errors.Is(err, access.ErrUnauthenticated):
		again.Body = loginBody{"This token is not good: it may be mistyped, expired or revoked. Copy the whole of it, from cavra_api_ on."}
	case err != nil:
		s.problem(w, r, nil, err)
		return
	default:
		http.SetCookie(w, cookie)
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	s.render(w, r, "login", again)
}

// logout ends the session, on the aggregator as in the browser.
func (s *site) logout(w http.ResponseWriter, r *http.Request) {
	gone, err := s.cfg.Gate.Logout(r.Context(), r)
	if err != nil {
		s.problem(w, r, nil, err)
		return
	}
	http.SetCookie(w, gone)
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// toLogin sends whoever has no session, or none any more, to the login.
func (s *site) toLogin(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Cookie") != "" {
		gone, err := s.cfg.Gate.Logout(r.Context(), r)
		if err != nil {
			// The session is over in any case.
			s.cfg.Log.WarnContext(r.Context(), "cannot end a session", slog.Any("error", err))
		} else {
			http.SetCookie(w, gone)
		}
	}
	to := "/login"
	if r.Method == http.MethodGet && r.URL.Path != "/" {
		to += "?" + url.Values{"next": {r.URL.RequestURI()}}.Encode()
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// local is a path of this site, or the front page for anything else: a login
// must not lead elsewhere.
func local(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.Opaque != "" || u.User != nil ||
		!strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}
