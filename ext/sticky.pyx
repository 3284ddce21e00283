"""See sticky.pxd.

The cookie's value: 64 characters of base64url (no padding, no unused bits) over 48 bytes, five little-endian words:
    format 1 and expiry in the top and lower 56 bits   8
    member identity                                    8
    hash of the service's name, under the key          8
    hash of the version's name, under the key          8
    SipHash-2-4-128 of the 32 bytes before            16

The table of sources is one array of entries, open addressing with a run of RUN entries from where the key points.
Workers write it without locks, and one may be killed between any two stores, so no entry is ever owned: the three
words of an entry (check, binding, expiry) are stored one by one, and check = key ^ mix(binding, expiry). A reader that
sees words of different writes finds that the check fails and misses; that it passes by chance is a matter of 2^-64.
An entry is free when it has expired: so are those full of zeros, and what a killed writer has left half done. A writer
first swaps the check against a value that fits nobody (a lost swap means another writer is at it: the binding is then
made by a later request), then stores the rest, the check last.
"""

from libc.stdint cimport int8_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from turnout.ext.scoreboard cimport sb_cas64, sb_load64, sb_map, sb_sticky_t, sb_store64, sb_unmap
from turnout.ext.siphash cimport siphash128, word_at, word_to
from turnout.ext.snapshot cimport sticky_conf_t, text_t
from turnout.ext.text cimport out_length, out_open, out_put, out_t, out_text, out_uint

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct tm:
        int tm_sec, tm_min, tm_hour, tm_mday, tm_mon, tm_year, tm_wday
    tm *gmtime_r(const time_t *, tm *)

cdef enum:
    FORMAT = 1
    WORDS = 4                 # of the payload
    PAYLOAD = 32              # bytes
    TOKEN = 48                # payload and tag
    TOKEN_TEXT = 64           # the same in base64url
    KIND_COOKIE = 1
    RUN = 8                   # entries looked at for one source

cdef const char *ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
cdef const char *DAYS = b"SunMonTueWedThuFriSat"
cdef const char *MONTHS = b"JanFebMarAprMayJunJulAugSepOctNovDec"
cdef int8_t digit[256]        # of a base64url character; -1: none


cdef void index_alphabet() noexcept nogil:
    cdef int i
    memset(digit, 0xff, sizeof(digit))
    for i in range(64):
        digit[<uint8_t>ALPHABET[i]] = <int8_t>i


index_alphabet()


# ---- by cookie ----------------------------------------------------------------------------------------------------

cdef uint64_t name_hash(const sticky_conf_t *conf, text_t name) noexcept nogil:
    """A name, not to be guessed by clients. Another key than the tag's, so that no name can stand for a payload."""
    cdef uint64_t key[2]
    cdef uint64_t tag[2]
    key[0] = conf.key[0] ^ <uint64_t>0x6e616d65
    key[1] = conf.key[1]
    siphash128(key, name.p, name.n, tag)
    return tag[0]


cdef bint decode(const char *text, uint8_t *token) noexcept nogil:
    """TOKEN_TEXT characters to TOKEN bytes."""
    cdef int i, j, d
    cdef uint32_t group
    for i in range(TOKEN_TEXT // 4):
        group = 0
        for j in range(4):
            d = digit[<uint8_t>text[4 * i + j]]
            if d < 0:
                return False
            group = group << 6 | <uint32_t>d
        token[3 * i] = <uint8_t>(group >> 16)
        token[3 * i + 1] = <uint8_t>(group >> 8)
        token[3 * i + 2] = <uint8_t>group
    return True


cdef void encode(const uint8_t *token, char *text) noexcept nogil:
    cdef int i, j
    cdef uint32_t group
    for i in range(TOKEN // 3):
        group = <uint32_t>token[3 * i] << 16 | <uint32_t>token[3 * i + 1] << 8 | token[3 * i + 2]
        for j in range(4):
            text[4 * i + j] = ALPHABET[(group >> (18 - 6 * j)) & 63]


cdef bint genuine(const sticky_conf_t *conf, const uint8_t *token) noexcept nogil:
    """Takes the same time wherever the tag differs."""
    cdef uint64_t tag[2]
    siphash128(conf.key, <const char *>token, PAYLOAD, tag)
    return ((tag[0] ^ word_at(token + PAYLOAD)) | (tag[1] ^ word_at(token + PAYLOAD + 8))) == 0


cdef int sticky_read(const service_t *service, const char *value, uint32_t n, uint64_t wall_s, uint64_t *identity,
                     uint64_t *expires_s) noexcept nogil:
    cdef uint8_t token[TOKEN]
    cdef uint64_t first
    if service.sticky.kind != KIND_COOKIE:
        return STICKY_NONE
    if n != TOKEN_TEXT or not decode(value, token) or not genuine(&service.sticky, token):
        return STICKY_BAD
    first = word_at(token)
    if first >> 56 != FORMAT or first & (~<uint64_t>0 >> 8) <= wall_s:
        return STICKY_BAD
    if word_at(token + 16) != name_hash(&service.sticky, service.name):
        return STICKY_BAD
    identity[0] = word_at(token + 8)
    expires_s[0] = first & (~<uint64_t>0 >> 8)
    return STICKY_BOUND


cdef void write_value(const service_t *service, const member_t *member, uint64_t expires_s, char *out) noexcept nogil:
    """TOKEN_TEXT characters."""
    cdef uint8_t token[TOKEN]
    cdef uint64_t tag[2]
    word_to(token, <uint64_t>FORMAT << 56 | (expires_s & (~<uint64_t>0 >> 8)))
    word_to(token + 8, member.identity)
    word_to(token + 16, name_hash(&service.sticky, service.name))
    word_to(token + 24, name_hash(&service.sticky, member.version))
    siphash128(service.sticky.key, <const char *>token, PAYLOAD, tag)
    word_to(token + PAYLOAD, tag[0])
    word_to(token + PAYLOAD + 8, tag[1])
    encode(token, out)


cdef inline void put_two(out_t *o, int v, const char *after) noexcept nogil:
    """Two digits and the separator that follows them."""
    cdef char text[3]
    text[0] = <char>(c'0' + v // 10 % 10)
    text[1] = <char>(c'0' + v % 10)
    text[2] = after[0]
    out_put(o, text, 3)


cdef void put_expires(out_t *o, uint64_t expires_s) noexcept nogil:
    """RFC 9110 5.6.7."""
    cdef time_t at = <time_t>expires_s
    cdef tm t
    if gmtime_r(&at, &t) == NULL or t.tm_year > 9999 - 1900:
        return
    out_put(o, b"; Expires=", 10)
    out_put(o, DAYS + 3 * t.tm_wday, 3)
    out_put(o, b", ", 2)
    put_two(o, t.tm_mday, b" ")
    out_put(o, MONTHS + 3 * t.tm_mon, 3)
    out_put(o, b" ", 1)
    out_uint(o, <uint64_t>(t.tm_year + 1900))
    out_put(o, b" ", 1)
    put_two(o, t.tm_hour, b":")
    put_two(o, t.tm_min, b":")
    put_two(o, t.tm_sec, b" ")
    out_put(o, b"GMT", 3)


cdef void put_attributes(out_t *o, const sticky_conf_t *conf) noexcept nogil:
    if conf.path.n:
        out_put(o, b"; Path=", 7)
        out_text(o, conf.path)
    if conf.domain.n:
        out_put(o, b"; Domain=", 9)
        out_text(o, conf.domain)
    if conf.http_only:
        out_put(o, b"; HttpOnly", 10)
    if conf.secure:
        out_put(o, b"; Secure", 8)
    if conf.same_site == 1:
        out_put(o, b"; SameSite=Lax", 14)
    elif conf.same_site == 2:
        out_put(o, b"; SameSite=Strict", 17)
    elif conf.same_site == 3:
        out_put(o, b"; SameSite=None", 15)


cdef uint32_t sticky_write(const service_t *service, const member_t *member, uint64_t expires_s, uint64_t wall_s, char *out,
                           uint32_t cap) noexcept nogil:
    cdef out_t o
    cdef char value[TOKEN_TEXT]
    write_value(service, member, expires_s, value)
    out_open(&o, out, cap)
    out_text(&o, service.sticky.name)
    out_put(&o, b"=", 1)
    out_put(&o, value, TOKEN_TEXT)
    out_put(&o, b"; Max-Age=", 10)
    out_uint(&o, expires_s - wall_s if expires_s > wall_s else 0)
    put_expires(&o, expires_s)
    put_attributes(&o, &service.sticky)
    return 0 if o.full else out_length(&o)


# ---- by source address --------------------------------------------------------------------------------------------

cdef inline uint64_t scatter(uint64_t v) noexcept nogil:
    """MurmurHash3's finaliser."""
    v ^= v >> 33
    v *= <uint64_t>0xff51afd7ed558ccd
    v ^= v >> 33
    v *= <uint64_t>0xc4ceb9fe1a85ec53
    return v ^ (v >> 33)


cdef inline uint64_t mix(uint64_t binding, uint64_t expires_ms) noexcept nogil:
    return scatter(scatter(binding) + expires_ms)


# endpoint and generation are read and written as one word.
cdef inline uint64_t *binding_of(sb_sticky_t *e) noexcept nogil:
    return <uint64_t *>&e.endpoint


cdef inline sb_sticky_t *entry_at(sb_t *sb, uint64_t source, uint32_t i) noexcept nogil:
    return &sb.sticky_table[(<uint32_t>source + i) & (sb.sticky - 1)]


cdef uint64_t sticky_source_get(sb_t *sb, uint64_t source, uint64_t now_ms, uint32_t *slot, uint32_t *generation) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t check, expires_ms, latest = now_ms
    cdef uint64_t binding, found = 0
    cdef sb_sticky_t *e
    # Two workers may have bound a source at once, each in its entry: the one that lasts longest is the one for all.
    for i in range(RUN):
        e = entry_at(sb, source, i)
        check = sb_load64(&e.key)
        binding = sb_load64(binding_of(e))
        expires_ms = sb_load64(&e.expires_ms)
        if expires_ms > latest and check ^ mix(binding, expires_ms) == source:
            latest = expires_ms
            found = binding
    if latest == now_ms:
        return 0
    memcpy(slot, &found, 4)
    memcpy(generation, <char *>&found + 4, 4)
    return 1


cdef sb_sticky_t *entry_for(sb_t *sb, uint64_t source, uint64_t *check) noexcept nogil:
    """Where to write: over the source's own entry that lasts longest, else over the one of the run that expires first
    (free ones have expired). check: what was there."""
    cdef uint32_t i
    cdef uint64_t seen, expires_ms, latest = 0, first = ~<uint64_t>0
    cdef sb_sticky_t *e
    cdef sb_sticky_t *at = NULL
    cdef bint own = False
    check[0] = 0
    for i in range(RUN):
        e = entry_at(sb, source, i)
        seen = sb_load64(&e.key)
        expires_ms = sb_load64(&e.expires_ms)
        if seen ^ mix(sb_load64(binding_of(e)), expires_ms) == source:
            if own and expires_ms <= latest:
                continue
            own = True
            latest = expires_ms
        elif own or (at != NULL and expires_ms >= first):
            continue
        else:
            first = expires_ms
        at = e
        check[0] = seen
    return at


cdef void sticky_source_put(sb_t *sb, uint64_t source, uint32_t slot, uint32_t generation, uint64_t expires_ms) noexcept nogil:
    cdef uint64_t check, binding
    cdef sb_sticky_t *e = entry_for(sb, source, &check)
    memcpy(&binding, &slot, 4)
    memcpy(<char *>&binding + 4, &generation, 4)
    if not sb_cas64(&e.key, &check, ~check):
        return
    sb_store64(binding_of(e), binding)
    sb_store64(&e.expires_ms, expires_ms)
    sb_store64(&e.key, source ^ mix(binding, expires_ms))


# ---- test access --------------------------------------------------------------------------------------------------

_VERDICTS = ("none", "bound", "bad")


def _siphash128(bytes key, bytes data):
    cdef uint64_t words[2]
    cdef uint64_t tag[2]
    assert len(key) == 16
    memcpy(words, <const char *>key, 16)
    siphash128(words, data, <uint32_t>len(data), tag)
    return tag[0].to_bytes(8, "little") + tag[1].to_bytes(8, "little")


cdef class _Cookies:
    cdef service_t service
    cdef list kept            # what the texts point into

    def __cinit__(self, *, kind="cookie", name="turnout", bytes key=bytes(range(16)), service="shop", path="/", domain="",
                  http_only=True, secure=False, same_site="lax"):
        memset(&self.service, 0, sizeof(service_t))
        self.kept = []
        self.service.name = self.text(service)
        self.service.sticky.kind = ("none", "cookie", "source").index(kind)
        self.service.sticky.name = self.text(name)
        self.service.sticky.path = self.text(path)
        self.service.sticky.domain = self.text(domain)
        self.service.sticky.http_only = http_only
        self.service.sticky.secure = secure
        self.service.sticky.same_site = ("unset", "lax", "strict", "none").index(same_site)
        assert len(key) == 16
        memcpy(self.service.sticky.key, <const char *>key, 16)

    cdef text_t text(self, str value):
        cdef bytes raw = value.encode()
        cdef text_t t
        self.kept.append(raw)
        t.p = raw
        t.n = <uint32_t>len(raw)
        return t

    def read(self, bytes value, uint64_t wall_s):
        cdef uint64_t identity = 0, expires_s = 0
        # A copy of just its size, so that a sanitizer sees what is read past it.
        cdef char *exact = <char *>malloc(len(value))
        memcpy(exact, <const char *>value, len(value))
        verdict = sticky_read(&self.service, exact, <uint32_t>len(value), wall_s, &identity, &expires_s)
        free(exact)
        return _VERDICTS[verdict], identity, expires_s

    def write(self, uint64_t identity, str version, uint64_t expires_s, uint64_t wall_s, *, uint32_t cap=1536):
        cdef member_t member
        cdef char *exact = <char *>malloc(cap)
        memset(&member, 0, sizeof(member))
        member.identity = identity
        member.version = self.text(version)
        n = sticky_write(&self.service, &member, expires_s, wall_s, exact, cap)
        out = exact[:n]
        free(exact)
        return out


cdef class _Sources:
    cdef sb_t sb

    def __cinit__(self, int fd):
        memset(&self.sb, 0, sizeof(sb_t))
        if sb_map(&self.sb, fd, 0xFFFFFFFF) != 0:
            raise ValueError(f"descriptor {fd} is not a scoreboard")

    def __dealloc__(self):
        sb_unmap(&self.sb)

    def get(self, uint64_t source, uint64_t now_ms):
        cdef uint32_t slot = 0, generation = 0
        if sticky_source_get(&self.sb, source, now_ms, &slot, &generation):
            return slot, generation
        return None

    def put(self, uint64_t source, uint32_t slot, uint32_t generation, uint64_t expires_ms):
        sticky_source_put(&self.sb, source, slot, generation, expires_ms)

    def entry(self, uint32_t i):
        cdef sb_sticky_t *e = &self.sb.sticky_table[i]
        return e.key, e.endpoint, e.generation, e.expires_ms

    def set_entry(self, uint32_t i, uint64_t key, uint32_t endpoint, uint32_t generation, uint64_t expires_ms):
        cdef sb_sticky_t *e = &self.sb.sticky_table[i]
        e.key, e.endpoint, e.generation, e.expires_ms = key, endpoint, generation, expires_ms

    def hammer(self, uint64_t seed, uint32_t sources, uint32_t times):
        """Bind and look up `sources` sources at random, each to endpoints that only it has; (found, wrong)."""
        cdef uint64_t random = seed, source, found = 0, wrong = 0
        cdef uint32_t i, slot, generation, which
        with nogil:
            for i in range(times):
                random = scatter(random + <uint64_t>0x9e3779b97f4a7c15)
                which = <uint32_t>(random >> 8) % sources
                source = scatter(which + 1)
                if random & 1:
                    sticky_source_put(&self.sb, source, which, <uint32_t>(random >> 40), 1000 + (random >> 2 & 63))
                elif sticky_source_get(&self.sb, source, 500, &slot, &generation):
                    found += 1
                    wrong += slot != which
        return found, wrong
