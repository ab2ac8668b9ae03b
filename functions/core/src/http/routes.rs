//! A router that knows its own routes, so that a test can hold them against the [contract](super::contract).

use std::convert::Infallible;

use axum::{
    Router,
    handler::Handler,
    routing::{self, MethodRouter},
};

/// The handlers of a path, with the methods that they take.
pub struct Methods<S> {
    names: Vec<&'static str>,
    handlers: MethodRouter<S, Infallible>,
}

/// No method at all: for a path of another function that a path of this one would stand for too.
#[must_use]
pub fn none<S: Clone + Send + Sync + 'static>() -> Methods<S> {
    Methods {
        names: Vec::new(),
        handlers: MethodRouter::new(),
    }
}

macro_rules! methods {
    ($($(#[$doc:meta])* $function:ident $name:literal;)*) => {
        $($(#[$doc])*
        pub fn $function<H, T, S>(handler: H) -> Methods<S>
        where
            H: Handler<T, S>,
            T: 'static,
            S: Clone + Send + Sync + 'static,
        {
            Methods { names: vec![$name], handlers: routing::$function(handler) }
        })*

        impl<S: Clone + Send + Sync + 'static> Methods<S> {
            $($(#[$doc])*
            #[must_use]
            pub fn $function<H, T>(mut self, handler: H) -> Self
            where
                H: Handler<T, S>,
                T: 'static,
            {
                self.names.push($name);
                Self { handlers: self.handlers.$function(handler), ..self }
            })*
        }
    };
}

methods! {
    /// Takes GET, and HEAD.
    get "GET";
    /// Takes POST.
    post "POST";
    /// Takes PUT.
    put "PUT";
    /// Takes DELETE.
    delete "DELETE";
}

/// A function's routes.
pub struct Routes<S> {
    router: Router<S>,
    list: Vec<(&'static str, &'static str)>,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self {
            router: Router::new(),
            list: Vec::new(),
        }
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more path, relative to the base.
    #[must_use]
    pub fn route(mut self, path: &'static str, methods: Methods<S>) -> Self {
        self.list.extend(methods.names.into_iter().map(|name| (name, path)));
        Self {
            router: self.router.route(path, methods.handlers),
            ..self
        }
    }

    /// Method and path of each.
    pub fn list(&self) -> impl Iterator<Item = (&'static str, &'static str)> + '_ {
        self.list.iter().copied()
    }

    /// The router that serves them.
    pub fn with_state(self, state: S) -> Router {
        self.router.with_state(state)
    }
}
