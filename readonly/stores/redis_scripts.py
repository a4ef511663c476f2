"""The steps that a Redis store takes: Lua scripts, so that nobody sees half of one (redis.io, "Atomic execution")."""

from __future__ import annotations

import hashlib

from . import ENDED_SECONDS, FORGOTTEN_SECONDS, LATELY_SECONDS, NEIGHBOURS, NEIGHBOURS_AT_MOST, SILENT_AT_MOST


class Script:
    """A Lua script, called by its hash."""

    def __init__(self, body: str) -> None:
        self.text = body.strip() + "\n"
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


# Every script gets the same nine keys, which are all that it touches:
#   KEYS[1] …:state        hash: `record`, and `since:<cause>`, the time in ms at which the store got that cause
#   KEYS[2] …:members      hash: member -> report
#   KEYS[3] …:seen         sorted set: member -> time in ms of its last report
#   KEYS[4] …:incarnation  hash with one field: run id of the server -> time in ms at which a member first met it
#   KEYS[5] …:ring         sorted set, all scores 0: members that have not left, by id
#   KEYS[6] …:forgotten    sorted set: member that a person vouched for -> time in ms
#   KEYS[7] …:living       sorted set: member that has not ended -> time in ms of its last report
#   KEYS[8] …:new          sorted set: new member that nobody has named -> time in ms until which one of those may be
#                          alive that were there before it
#   KEYS[9] …:until        sorted set: member that has not ended -> time in ms until which it is alive, by its own word
# ARGV[1] is the run id of the server, as learnt when the connection was made. All times are the server's.
_HEAD = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local now_ms = string.format('%.0f', now)
local born = redis.call('HGET', KEYS[4], ARGV[1])
"""
# A restart and a failover have another run id, FLUSHALL has taken the hash with it: either way it is young
# again.
_STAMP = """
if not born or tonumber(born) > now then
  redis.call('DEL', KEYS[4])
  redis.call('HSET', KEYS[4], ARGV[1], now_ms)
  born = now_ms
end
"""
# Members that have left, or were killed, stay registered for days, and no interval should grow with their number.
_LATELY = f"string.format('%.0f', now - {LATELY_SECONDS:.0f} * 1000)"
_READING = (
    f"redis.call('HGET', KEYS[1], 'record'), clock[1], clock[2], born, redis.call('ZCOUNT', KEYS[3], {_LATELY}, '+inf')"
)

READ = Script(f"""
-- Reads readonly:{{site}}:state, :seen, :incarnation. Writes nothing, so that a replica and a full server answer, too.
{_HEAD}
return {{{_READING}}}
""")

REPLACE = Script(f"""
-- Owns readonly:{{site}}:state and :incarnation. Publishes on ARGV[5].
-- ARGV[2] '1' if ARGV[3] must stand there, '0' if nothing may; ARGV[4] the new record; ARGV[6] the time in ms from
-- which nobody waits for it any more; ARGV[7]… the causes in it.
{_HEAD}
local stands = redis.call('HGET', KEYS[1], 'record')
local expected = not stands
if ARGV[2] == '1' then expected = stands == ARGV[3] end
if expected and now < tonumber(ARGV[6]) then
  -- First, so that a user who may not publish has changed nothing. Nobody reads before this script is over.
  redis.call('PUBLISH', ARGV[5], '')
  {_STAMP}
  if not stands then redis.call('DEL', KEYS[1]) end
  local standing = {{}}
  for i = 7, #ARGV do standing['since:' .. ARGV[i]] = true end
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(name, 1, 6) == 'since:' and not standing[name] then redis.call('HDEL', KEYS[1], name) end
  end
  for name in pairs(standing) do redis.call('HSETNX', KEYS[1], name, now_ms) end
  redis.call('HSET', KEYS[1], 'record', ARGV[4])
end
return {{{_READING}}}
""")

REPORT = Script(f"""
-- Owns readonly:{{site}}:members, :seen, :ring, :living, :until, :new and :incarnation; reads :state. Publishes on
-- ARGV[5] unless it is empty. ARGV[2] member, ARGV[3] report, ARGV[4] ms after which silent members are dropped,
-- ARGV[6] for last words 'ended' or 'left', ARGV[7] ms within which who has reported is alive; ARGV[8] '' or, from a
-- new member, the ms for which this registry proves nothing; ARGV[9] the channels of members, without their ids;
-- ARGV[10]… whom the sender remembers.
{_HEAD}
if ARGV[5] ~= '' then redis.call('PUBLISH', ARGV[5], '') end
{_STAMP}
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('ZADD', KEYS[3], now_ms, ARGV[2])
local joins = 0
if ARGV[6] == 'left' then redis.call('ZREM', KEYS[5], ARGV[2]) else joins = redis.call('ZADD', KEYS[5], 0, ARGV[2]) end
if ARGV[6] == '' then redis.call('ZADD', KEYS[7], now_ms, ARGV[2]) else redis.call('ZREM', KEYS[7], ARGV[2]) end
local oldest = '(' .. string.format('%.0f', now - tonumber(ARGV[4]))
local silent = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', oldest, 'LIMIT', 0, 1000)
if #silent > 0 then
  redis.call('HDEL', KEYS[2], unpack(silent))
  redis.call('ZREM', KEYS[3], unpack(silent))
  redis.call('ZREM', KEYS[5], unpack(silent))
  redis.call('ZREM', KEYS[7], unpack(silent))
  redis.call('ZREM', KEYS[8], unpack(silent))
  redis.call('ZREM', KEYS[9], unpack(silent))
end
-- Round the ring up to the third that is alive. Who has ended long ago is met once, and leaves it then.
local alive, ended, near, living = now - tonumber(ARGV[7]), now - {ENDED_SECONDS:.0f} * 1000, {{}}, 0
local function walk(from, to)
  local most = {NEIGHBOURS}
  while true do
    local found = redis.call('ZRANGEBYLEX', KEYS[5], from, to, 'LIMIT', 0, most)
    for _, other in ipairs(found) do
      if living == {NEIGHBOURS} or #near == {NEIGHBOURS_AT_MOST} then return end
      local heard = redis.call('ZSCORE', KEYS[7], other)
      if heard or tonumber(redis.call('ZSCORE', KEYS[3], other) or 0) >= ended then
        near[#near + 1] = other
        if heard and tonumber(heard) >= alive then living = living + 1 end
      else
        redis.call('ZREM', KEYS[5], other)
      end
    end
    if #found < most then return end
    from, most = '(' .. found[#found], 20
  end
end
walk('(' .. ARGV[2], '+')
if living < {NEIGHBOURS} then walk('-', '(' .. ARGV[2]) end
if #ARGV > 9 then redis.call('ZREM', KEYS[8], unpack(ARGV, 10)) end
-- `transitions.noted`: a new member is one until somebody has named it, or nobody is there who could.
local noted = 1
if ARGV[8] ~= '' then
  redis.call('ZREM', KEYS[9], ARGV[2])
  local last = redis.call('ZREVRANGE', KEYS[9], 0, 0, 'WITHSCORES')[2]
  if joins == 1 then redis.call('ZADD', KEYS[8], last or now_ms, ARGV[2]) end
  local wait = redis.call('ZSCORE', KEYS[8], ARGV[2])
  local alone = not last or tonumber(last) < now
  if wait and ((not alone and tonumber(wait) >= now) or now - tonumber(born) < tonumber(ARGV[8])) then noted = 0 end
  if noted == 1 then redis.call('ZREM', KEYS[8], ARGV[2]) end
end
if ARGV[6] == '' then
  redis.call('ZADD', KEYS[9], string.format('%.0f', now + tonumber(ARGV[7])), ARGV[2])
else
  redis.call('ZREM', KEYS[9], ARGV[2])
end
-- The last three before it that are alive will have it for a neighbour: they are asked to report now.
if noted == 0 and joins == 1 then
  local looked, asked = 0, 0
  local function back(from, to)
    while true do
      local found = redis.call('ZREVRANGEBYLEX', KEYS[5], from, to, 'LIMIT', 0, 20)
      for _, other in ipairs(found) do
        if asked == {NEIGHBOURS} or looked == {NEIGHBOURS_AT_MOST} then return end
        looked = looked + 1
        if tonumber(redis.call('ZSCORE', KEYS[9], other) or 0) >= now then
          redis.call('PUBLISH', ARGV[9] .. other, '')
          asked = asked + 1
        end
      end
      if #found < 20 then return end
      from = '(' .. found[#found]
    end
  end
  back('(' .. ARGV[2], '-')
  if asked < {NEIGHBOURS} then back('+', '(' .. ARGV[2]) end
end
return {{{_READING}, near, noted}}
""")

CENSUS = Script(f"""
-- Reads readonly:{{site}}:state, :members, :seen, :incarnation and :forgotten in one step.
{_HEAD}
return {{{_READING}, redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]),
  redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES'), redis.call('ZRANGE', KEYS[6], 0, -1)}}
""")

SILENT = Script(f"""
-- Reads readonly:{{site}}:members and :living. ARGV[2], ARGV[3]: ms of silence, at least and at most; ARGV[4]: only
-- those that reported before this time in ms, '' for all.
{_HEAD}
local from, to = now - tonumber(ARGV[3]), now - tonumber(ARGV[2])
if ARGV[4] ~= '' then to = math.min(to, tonumber(ARGV[4])) end
local heard = redis.call('ZREVRANGEBYSCORE', KEYS[7], '(' .. string.format('%.0f', to),
  '(' .. string.format('%.0f', from), 'WITHSCORES', 'LIMIT', 0, {SILENT_AT_MOST})
local found = {{}}
for i = 1, #heard, 2 do
  found[#found + 1] = {{heard[i], redis.call('HGET', KEYS[2], heard[i]) or '', heard[i + 1]}}
end
return found
""")

FORGET = Script(f"""
-- Owns readonly:{{site}}:members, :seen, :ring, :living, :until, :new and :forgotten. ARGV[2] the member.
{_HEAD}
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('ZREM', KEYS[5], ARGV[2])
redis.call('ZREM', KEYS[7], ARGV[2])
redis.call('ZREM', KEYS[8], ARGV[2])
redis.call('ZREM', KEYS[9], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', string.format('%.0f', now - {FORGOTTEN_SECONDS:.0f} * 1000))
redis.call('ZADD', KEYS[6], now_ms, ARGV[2])
return {{}}
""")

MARK = Script(f"""
-- Owns readonly:{{site}}:incarnation. Writes there what stands there: what is asked of replicas and disk afterwards
-- (WAIT counts from the last write of its own connection) is true of all that was written before.
{_HEAD}
{_STAMP}
redis.call('HSET', KEYS[4], ARGV[1], born)
return {{}}
""")

APPEND = Script("""
-- Owns KEYS[1], readonly:{site}:log:<name>, a list. ARGV[1] the entry, ARGV[2] how many are kept.
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[2]), -1)
return {}
""")
