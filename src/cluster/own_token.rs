//! Daypass's own token, which the kubelet renews in its file.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

use http::HeaderValue;
use kube::Config;
use kube::client::AuthError;
use secrecy::{ExposeSecret as _, SecretString};

/// How often the file is read again, as client-go does.
const REREAD_INTERVAL: Duration = Duration::from_secs(60);
/// How soon it is read again when the API server refuses what was in it.
const REREAD_PAUSE: Duration = Duration::from_secs(1);

/// The token that Daypass calls the API server with.
#[derive(Debug)]
pub(super) struct OwnToken {
    /// Where it is renewed; `None` for one that a kubeconfig holds.
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    token: SecretString,
    /// When it was read from the file.
    read: Option<Instant>,
}

impl OwnToken {
    /// Takes the token out of the configuration, so that kube does not send one of its own; `None` where
    /// there is none.
    ///
    /// # Errors
    /// When its file cannot be read, or it cannot be sent in a header.
    pub(super) fn take(config: &mut Config) -> kube::Result<Option<Self>> {
        let auth = &mut config.auth_info;
        // kube takes the user name and the inline token first.
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

    /// The token itself, for what it says.
    pub(super) fn secret(&self) -> SecretString {
        self.fresh(REREAD_INTERVAL).token.clone()
    }

    /// The header to send now.
    pub(super) fn current(&self) -> HeaderValue {
        // Whatever is kept can be sent: what cannot is not taken over from the file.
        header(&self.fresh(REREAD_INTERVAL).token).unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
    }

    /// Whether there is another token than the one that was sent and refused. The file is read at once, but
    /// not with every one of many calls that are refused at the same time.
    pub(super) fn is_newer_than(&self, refused: &HeaderValue) -> bool {
        self.current() != refused || header(&self.fresh(REREAD_PAUSE).token).is_ok_and(|header| header != refused)
    }

    /// The token, read again where it was last read so long ago. Where the file cannot be read, the last one
    /// goes on: it may still be good.
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
        assert!(config.auth_info.token_file.is_none(), "kube sends none");
        token
    }

    #[test]
    fn renewed_token_is_read_as_soon_as_the_old_one_is_refused() {
        let file = std::env::temp_dir().join(format!("daypass-own-token-{}", std::process::id()));
        fs::write(&file, "old\n").unwrap();
        let token = of_file(&file);
        let old = token.current();
        assert_eq!(old, "Bearer old");
        fs::write(&file, "new").unwrap();
        assert_eq!(token.current(), old, "not read with every call");
        assert!(!token.is_newer_than(&old), "nor at once after it was read");
        token.state.lock().unwrap().read = None;
        assert!(token.is_newer_than(&old));
        assert_eq!(token.current(), "Bearer new");
        assert!(!token.is_newer_than(&token.current()));
        assert!(token.is_newer_than(&old), "another call has read it meanwhile");
        // Half a write, or none: the last one goes on.
        for bad in ["a\nb", ""] {
            fs::write(&file, bad).unwrap();
            token.state.lock().unwrap().read = None;
            assert_eq!(token.current(), "Bearer new", "{bad:?}");
        }
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn token_of_a_kubeconfig_stays() {
        let mut config = Config::new(http::Uri::from_static("https://localhost"));
        config.auth_info.token = Some("inline".into());
        let token = OwnToken::take(&mut config).unwrap().unwrap();
        assert!(!token.is_newer_than(&token.current()));
        assert_eq!(token.secret().expose_secret(), "inline");
        let mut config = Config::new(http::Uri::from_static("https://localhost"));
        assert!(OwnToken::take(&mut config).unwrap().is_none(), "a certificate, a plugin");
    }
}
