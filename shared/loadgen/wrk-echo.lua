-- Measures a raw echo server with an unmodified wrk:
--
--   wrk -t4 -c1000 -d10s -s shared/loadgen/wrk-echo.lua http://localhost:9000/
--   wrk -t4 -c1000 -d10s -s shared/loadgen/wrk-echo.lua http://localhost:9000/ -- 1024
--
-- wrk reads whatever comes back as an HTTP response, and an echo server sends back what wrk sent. So
-- what is sent here as the request is a complete HTTP response. The number after `--` is its size in
-- bytes, head and body together; 64 unless given.

local first = true

-- wrk asks its first thread for one request before the run, checks that it is one, and never sends
-- it. That call, and no other, has to be answered with a real request.
function setup(thread)
   thread:set("asked_for_a_check", first)
   first = false
end

-- Leading zeros, which HTTP allows, keep the head at one length whatever number is in it.
local head = "HTTP/1.1 200 OK\r\nContent-Length: %06d\r\n\r\n"
local head_size = #head:format(0)

local function response(size)
   if size < head_size or size > 999999 then
      io.stderr:write("wrk-echo.lua: a message has from ", head_size, " to 999999 bytes\n")
      os.exit(2)
   end
   return head:format(size - head_size) .. string.rep("x", size - head_size)
end

local message

function init(args)
   message = response(tonumber(args[1]) or 64)
end

function request()
   if asked_for_a_check then
      asked_for_a_check = false
      return wrk.format("GET", "/")
   end
   return message
end
