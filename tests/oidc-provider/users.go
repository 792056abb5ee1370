package main

import (
	"context"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const loginPath = "/login"

type user struct {
	Name string `json:"name"`
	// The name by default.
	Subject       string   `json:"sub"`
	Email         string   `json:"email"`
	EmailVerified *bool    `json:"emailVerified"`
	Groups        []string `json:"groups"`
	// More claims, in each token whatever its scopes. They go before the ones above.
	Claims map[string]any `json:"claims"`
	// When they last signed in, in Unix seconds. Kept until `prompt=login`, `max_age` or a logout asks for more.
	AuthTime int64 `json:"authTime"`
}

// bySubject needs the lock.
func (s *store) bySubject(subject string) *user {
	for _, user := range s.users {
		if user.Subject == subject {
			return user
		}
	}
	return nil
}

// info sets the claims that these scopes ask for.
func (s *store) info(info *oidc.UserInfo, subject string, scopes []string) error {
	s.Lock()
	defer s.Unlock()
	user := s.bySubject(subject)
	if user == nil {
		return errNotFound
	}
	info.Subject = user.Subject
	if slices.Contains(scopes, oidc.ScopeProfile) {
		info.AppendClaims("name", user.Name)
		info.AppendClaims("preferred_username", user.Name)
	}
	// As claims of our own, because the library leaves out `false`.
	if slices.Contains(scopes, oidc.ScopeEmail) && user.Email != "" {
		info.AppendClaims("email", user.Email)
		if user.EmailVerified != nil {
			info.AppendClaims("email_verified", *user.EmailVerified)
		}
	}
	if slices.Contains(scopes, "groups") && user.Groups != nil {
		info.AppendClaims("groups", user.Groups)
	}
	for name, value := range user.Claims {
		info.AppendClaims(name, value)
	}
	return nil
}

// SetUserinfoFromRequest implements op.CanSetUserinfoFromRequest: the claims of an ID token.
func (s *store) SetUserinfoFromRequest(
	_ context.Context, info *oidc.UserInfo, asked op.IDTokenRequest, scopes []string,
) error {
	return s.info(info, asked.GetSubject(), scopes)
}

// SetUserinfoFromToken implements op.Storage: the answer of the userinfo endpoint.
func (s *store) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, id, subject, _ string) error {
	token, err := find(s, s.tokens, id)
	if err != nil || token.expires.Before(time.Now()) {
		return errNotFound
	}
	return s.info(info, subject, token.scopes)
}

// SetUserinfoFromScopes implements op.Storage, which replaced it by SetUserinfoFromRequest.
func (s *store) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

// SetIntrospectionFromToken implements op.Storage. Only confidential clients reach it.
func (s *store) SetIntrospectionFromToken(
	_ context.Context, answer *oidc.IntrospectionResponse, id, subject, _ string,
) error {
	token, err := find(s, s.tokens, id)
	if err != nil || token.expires.Before(time.Now()) {
		return errNotFound
	}
	answer.Active, answer.Subject, answer.ClientID, answer.Scope = true, subject, token.client, token.scopes
	return nil
}

// GetPrivateClaimsFromScopes implements op.Storage. Replaced by GetPrivateClaimsFromRequest.
func (s *store) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

// GetPrivateClaimsFromRequest implements op.CanGetPrivateClaimsFromRequest: the claims of a JWT access token.
func (s *store) GetPrivateClaimsFromRequest(
	_ context.Context, asked op.TokenRequest, _ []string,
) (map[string]any, error) {
	info := &oidc.UserInfo{}
	err := s.info(info, asked.GetSubject(), asked.GetScopes())
	info.AppendClaims("scope", strings.Join(asked.GetScopes(), " "))
	return info.Claims, err
}

var page = template.Must(template.New("login").Parse(`<!doctype html>
<title>Sign in</title>
<h1>Sign in</h1>
{{range .Users}}<p><a href="?id={{$.ID}}&amp;user={{.}}">{{.}}</a></p>
{{end}}`))

// login signs in the user that `login_hint` names, or the browser's last user, without asking. If there is neither, it
// lists the users.
func (p *provider) login(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("id")
	request, err := find(p.store, p.store.requests, id)
	if err != nil {
		http.Error(w, "unknown sign-in", http.StatusBadRequest)
		return
	}
	name := r.FormValue("user")
	if name == "" {
		name = request.LoginHint
	}
	if cookie, err := r.Cookie("user"); name == "" && err == nil {
		name, _ = url.QueryUnescape(cookie.Value)
	}
	if name == "" && !slices.Contains(request.Prompt, oidc.PromptNone) {
		p.store.Lock()
		names := slices.Sorted(maps.Keys(p.store.users))
		p.store.Unlock()
		page.Execute(w, map[string]any{"ID": id, "Users": names})
		return
	}
	if name != "" {
		if !p.store.signIn(request, name) {
			http.Error(w, "no user named "+name, http.StatusNotFound)
			return
		}
		cookie := http.Cookie{Name: "user", Value: url.QueryEscape(name), Path: "/", Secure: true, HttpOnly: true}
		http.SetCookie(w, &cookie)
	}
	callback := op.AuthCallbackURL(p.op)(op.ContextWithIssuer(r.Context(), p.issuer), id)
	http.Redirect(w, r, callback, http.StatusFound)
}

func (s *store) signIn(request *request, name string) bool {
	s.Lock()
	defer s.Unlock()
	user := s.users[name]
	if user == nil {
		return false
	}
	now := time.Now()
	// The library makes `prompt=login` a `max_age` of 0.
	tooOld := request.MaxAge != nil && now.Unix()-user.AuthTime >= int64(*request.MaxAge)
	if user.AuthTime == 0 || tooOld {
		user.AuthTime = now.Unix()
	}
	request.subject, request.authTime = user.Subject, time.Unix(user.AuthTime, 0)
	return true
}
