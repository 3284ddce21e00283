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
from libc.string cimport memcpy, memset
from turnout.ext.scoreboard cimport sb_cas64, sb_load64, sb_sticky_t, sb_store64
from turnout.ext.snapshot cimport sticky_conf_t, text_t
from turnout.ext.text cimport out_length, out_open, out_put, out_t, out_text, out_uint

cdef extern from "<endian.h>" nogil:
    uint64_t le64toh(uint64_t)
    uint64_t htole64(uint64_t)

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


# ---- SipHash-2-4, 128 bits (Aumasson and Bernstein, 2012; the reference's variant with long output) ---------------

cdef struct sip_t:
    uint64_t a, b, c, d


cdef inline uint64_t rotl(uint64_t v, int n) noexcept nogil:
    return v << n | v >> (64 - n)


cdef inline void sip_rounds(sip_t *s, int n) noexcept nogil:
    cdef int i
    for i in range(n):
        s.a += s.b
        s.b = rotl(s.b, 13) ^ s.a
        s.a = rotl(s.a, 32)
        s.c += s.d
        s.d = rotl(s.d, 16) ^ s.c
        s.a += s.d
        s.d = rotl(s.d, 21) ^ s.a
        s.c += s.b
        s.b = rotl(s.b, 17) ^ s.c
        s.c = rotl(s.c, 32)


cdef inline void sip_word(sip_t *s, uint64_t word) noexcept nogil:
    s.d ^= word
    sip_rounds(s, 2)
    s.a ^= word


cdef inline uint64_t word_at(const void *p) noexcept nogil:
    cdef uint64_t v
    memcpy(&v, p, 8)
    return le64toh(v)


cdef inline void word_to(void *p, uint64_t v) noexcept nogil:
    v = htole64(v)
    memcpy(p, &v, 8)


cdef void siphash128(const uint64_t *key, const char *p, uint32_t n, uint64_t *tag) noexcept nogil:
    """key: 16 bytes as they stand; tag: two numbers."""
    cdef uint64_t k0 = le64toh(key[0]), k1 = le64toh(key[1])
    cdef uint64_t last = <uint64_t>n << 56
    cdef uint32_t i, whole = n & ~<uint32_t>7
    cdef sip_t s
    s.a = k0 ^ <uint64_t>0x736f6d6570736575
    s.b = k1 ^ <uint64_t>0x646f72616e646f6d ^ 0xee
    s.c = k0 ^ <uint64_t>0x6c7967656e657261
    s.d = k1 ^ <uint64_t>0x7465646279746573
    for i in range(0, whole, 8):
        sip_word(&s, word_at(p + i))
    for i in range(whole, n):
        last |= <uint64_t><uint8_t>p[i] << (8 * (i & 7))
    sip_word(&s, last)
    s.c ^= 0xee
    sip_rounds(&s, 4)
    tag[0] = s.a ^ s.b ^ s.c ^ s.d
    s.b ^= 0xdd
    sip_rounds(&s, 4)
    tag[1] = s.a ^ s.b ^ s.c ^ s.d


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


cdef inline uint64_t key_of(sb_sticky_t *e) noexcept nogil:
    """The source an entry is for; of an entry in change: some number that is nobody's."""
    return sb_load64(&e.key) ^ mix(sb_load64(binding_of(e)), sb_load64(&e.expires_ms))


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


cdef sb_sticky_t *entry_for(sb_t *sb, uint64_t source) noexcept nogil:
    """Where to write: over the source's own entry that lasts longest, else over the one of the run that expires first
    (free ones have expired)."""
    cdef uint32_t i
    cdef uint64_t expires_ms, latest = 0, first = ~<uint64_t>0
    cdef sb_sticky_t *e
    cdef sb_sticky_t *own = NULL
    cdef sb_sticky_t *victim = entry_at(sb, source, 0)
    for i in range(RUN):
        e = entry_at(sb, source, i)
        expires_ms = sb_load64(&e.expires_ms)
        if expires_ms >= latest and key_of(e) == source:
            latest = expires_ms
            own = e
        if expires_ms < first:
            first = expires_ms
            victim = e
    return own if own != NULL else victim


cdef void sticky_source_put(sb_t *sb, uint64_t source, uint32_t slot, uint32_t generation, uint64_t expires_ms) noexcept nogil:
    cdef sb_sticky_t *e = entry_for(sb, source)
    cdef uint64_t check = sb_load64(&e.key)
    cdef uint64_t binding
    memcpy(&binding, &slot, 4)
    memcpy(<char *>&binding + 4, &generation, 4)
    if not sb_cas64(&e.key, &check, ~check):
        return
    sb_store64(binding_of(e), binding)
    sb_store64(&e.expires_ms, expires_ms)
    sb_store64(&e.key, source ^ mix(binding, expires_ms))
