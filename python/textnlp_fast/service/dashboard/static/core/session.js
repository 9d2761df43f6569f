// Who is looking. A token lives as long as its tab (sessionStorage) and travels as a header, never as a cookie.

const KEY = "textnlp-fast.token";
const RANKS = { reader: 0, publisher: 1, operator: 2 };

class Session extends EventTarget {
  me = null;

  get token() {
    try {
      return sessionStorage.getItem(KEY);
    } catch {
      return this.held ?? null;
    }
  }

  /** Takes another token, or none; whoever shows something shows it again. */
  use(token) {
    try {
      if (token) sessionStorage.setItem(KEY, token);
      else sessionStorage.removeItem(KEY);
    } catch {
      this.held = token || null;
    }
    this.me = null;
    this.dispatchEvent(new Event("change"));
  }

  know(me) {
    this.me = me;
    this.dispatchEvent(new Event("known"));
  }

  /** Whether the service will let this person do what needs `role`. */
  may(role) {
    return (RANKS[this.me?.role] ?? -1) >= RANKS[role];
  }
}

export const session = new Session();
