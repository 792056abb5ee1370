//! Daypass's own token: reads it again from its file, where the kubelet renews it.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

use http::HeaderValue;
use kube::Config;
use kube::client::AuthError;
use secrecy::{ExposeSecret as _, SecretString};

/// How often Daypass reads the file again, as client-go does.
const REREAD_INTERVAL: Duration = Duration::from_secs(60);
/// The least time between two reads of the file when the API server refuses the token.
const REREAD_PAUSE: Duration = Duration::from_secs(1);

/// The token that Daypass sends to the API server.
#[derive(Debug)]
pub(super) struct OwnToken {
    /// The file that holds it; `None` if the token is inline in a kubeconfig.
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    token: SecretString,
    /// When the file was last read.
    read: Option<Instant>,
}

impl OwnToken {
    /// Takes the token out of the configuration, so that kube does not send it too; `None` if the configuration has no
    /// token.
    ///
    /// # Errors
    /// If the file is unreadable, or the token is not a valid header value.
    pub(super) fn take(config: &mut Config) -> kube::Result<Option<Self>> {
        let auth = &mut config.auth_info;
        // As in kube, a user name and password come first, then an inline token.
        if auth.username.is_some() && auth.password.is_some() {
            return Ok(None);
        }
        let (file, token) = match (auth.token.take(), auth.token_file.take().map(PathBuf::from)) {
            (Some(token), _) => (None, token),
            (None, Some(file)) => {
                let token =
                    read(&file).map_err(|error| kube::Error::Auth(AuthError::ReadTokenFile(error, file.clone())))?;
                (Some(file), token)
            }
            (None, None) => return Ok(None),
        };
        header(&token).map_err(|error| kube::Error::Auth(AuthError::InvalidBearerToken(error)))?;
        Ok(Some(Self { file, state: Mutex::new(State { token, read: Some(Instant::now()) }) }))
    }

    /// The token itself, to read its claims.
    pub(super) fn secret(&self) -> SecretString {
        self.fresh(REREAD_INTERVAL).token.clone()
    }

    /// The header to send now.
    pub(super) fn current(&self) -> HeaderValue {
        // The fallback never happens: only tokens that are valid header values are kept.
        header(&self.fresh(REREAD_INTERVAL).token).unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
    }

    /// Whether there is a newer token than the refused one. Reads the file again unless it was read within
    /// [`REREAD_PAUSE`], so that many refusals at the same time cause one read.
    pub(super) fn is_newer_than(&self, refused: &HeaderValue) -> bool {
        self.current() != refused || header(&self.fresh(REREAD_PAUSE).token).is_ok_and(|header| header != refused)
    }

    /// The token, read again if the last read is older than `age`. If the file is unreadable, keeps the last token,
    /// which may still be valid.
    fn fresh(&self, age: Duration) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = state.read.is_none_or(|read| read.elapsed() >= age);
        if let Some(file) = self.file.as_ref().filter(|_| is_old) {
            state.read = Some(Instant::now());
            if let Some(token) = read(file).ok().filter(|token| header(token).is_ok()) {
                state.token = token;
            }
        }
        state
    }
}

fn read(file: &PathBuf) -> io::Result<SecretString> {
    let text = fs::read_to_string(file)?;
    match text.trim() {
        "" => Err(io::ErrorKind::UnexpectedEof.into()),
        token => Ok(token.into()),
    }
}

fn header(token: &SecretString) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(file: &std::path::Path) -> OwnToken {
        let mut config = Config::new(http::Uri::from_static("https://localhost"));
        config.auth_info.token_file = Some(file.display().to_string());
        let token = OwnToken::take(&mut config).unwrap().unwrap();
        assert!(config.auth_info.token_file.is_none(), "kube would send it too");
        token
    }

    #[test]
    fn refused_token_is_read_again() {
        let file = std::env::temp_dir().join(format!("daypass-own-token-{}", std::process::id()));
        fs::write(&file, "old\n").unwrap();
        let token = of_file(&file);
        let old = token.current();
        assert_eq!(old, "Bearer old");
        fs::write(&file, "new").unwrap();
        assert_eq!(token.current(), old, "does not read the file on every call");
        assert!(!token.is_newer_than(&old), "read less than a second ago");
        token.state.lock().unwrap().read = None;
        assert!(token.is_newer_than(&old));
        assert_eq!(token.current(), "Bearer new");
        assert!(!token.is_newer_than(&token.current()));
        assert!(token.is_newer_than(&old), "another call has read the new token meanwhile");
        // After an incomplete write, keep the last token.
        for bad in ["a\nb", ""] {
            fs::write(&file, bad).unwrap();
            token.state.lock().unwrap().read = None;
            assert_eq!(token.current(), "Bearer new", "{bad:?}");
        }
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn inline_token_is_never_renewed() {
        let mut config = Config::new(http::Uri::from_static("https://localhost"));
        config.auth_info.token = Some("inline".into());
        let token = OwnToken::take(&mut config).unwrap().unwrap();
        assert!(!token.is_newer_than(&token.current()));
        assert_eq!(token.secret().expose_secret(), "inline");
        let mut config = Config::new(http::Uri::from_static("https://localhost"));
        assert!(OwnToken::take(&mut config).unwrap().is_none(), "other authentication");
    }
}
