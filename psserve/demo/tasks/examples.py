"""What the manifests of the demo modules give as examples beside generated requests: how people put such requests.

`auto` learns from them. The everyday requests that it is measured with (tests/router/everyday_requests.json) were
written before, and none of those held out shares half of its words with one of these.
"""

from __future__ import annotations

MATH = tuple(
    """\
(27 + 6) / 3
compute 17 * 4
What is 63 minus 18?
a tenth of 350
6 bananas plus 2 more?
How much is a third of 27?
10 balls, lost 3. how many now
Would you sum these up for me, please: 8.50, 13.20, 21?
I had 45 euros and spent 17. What is left?
Could you tell me the total price of 3 sandwiches at 9 dollars each?
How old is Nick if his sister is 11 and he is twice her age?
A shelf holds 7 rows of 12 jars. How many jars are there?
4 friends share 52 cherries equally, what does each get?
how many minutes are 3 hours and a half
She walks 20 km a day. How many days does she need for 260 km?
A car drives 65 km per hour for 4 hours. How far does it get?
There were 28 people on the bus; 9 got off and 6 got on. How many ride on?
Hi, can you help me with my maths homework? A pack has 6 rolls and we take 8 packs. How many rolls is that?
The bill is 32.80 and I hand over a fifty: my change?
Twelve eggs, five broke, the rest?
double 36
Divide 96 by 8
subtract 14 from 50
Grandma lives in a yellow house with 2 cats. Last week she knitted 5 socks and this week 9. How many socks did she knit?
If one kilo costs 3 dollars, what must I pay for 7 kilos?
The temperatures were 4, 10 and 13 degrees: what is their mean?
Jim earns 14 dollars an hour and works 6 hours. What does he earn in all?
Who has more and by how much: Kate with 31 beads or Lou with 4 boxes of 8?
half of the 64 chairs are empty. how many are taken?
Calculate the rest: 150 less 35 less 60.
It takes 9 nails for a chair. How many nails for 11 chairs?
howmany grapes do i hav when i eat 5 of my 18
Every guest gets 4 sweets and we are 23 guests. Are 100 sweets enough, and how many are left over?
The sum of two numbers is 40 and one of them is 23. What is the other?
I save 8 dollars each week. How much have I got after 12 weeks?
Three times seven take away five
A farmer sells 15 of his 42 sheep, then buys 6. How many remain?
Count all the legs of 4 dogs and 6 hens together
2 cakes cut into 12 pieces each, 17 eaten
We pay 84 euros for dinner and are 7 people: how much each?
How long does she need to type 900 words if she types 60 words a minute?
A tap fills 12 litres in one minute. When is a tub of 240 litres full?
It was 7 degrees at dawn, and by noon it was 5 degrees warmer. How warm was it then?
What do five cinema tickets come to if one is 11 euros?
Lena had 3 cousins over and baked 30 pies. Each cousin ate 2, and her dog stole one. How many were not eaten?
There are 4 parking levels with 35 cars on each. How many cars is that?
200 pages, of which I know 145 already. What is left to learn?
The first shelf has 18 books, the second has twice as many. Together?
4 plus 4 plus 4
seven and eight, what does it make
Nora is 5 years older than Max, who is 9. Her age?
1.5 kilos of plums at 4 euros a kilo
In a class of 30 children, 40 percent have a bike. How many children are that?
A rope of 60 metres is cut into pieces of 5 metres. How many pieces?
After a discount of 10 dollars the coat costs 75. What was the price before?
Tim ran twice as far as Eli. Eli ran 6 km. And Tim?
wot is 8 time 12
A team won 14 of 22 games and drew 3. How many did it lose?
Mum picked 3 baskets of 25 strawberries on Saturday and used 40 for jam. How many strawberries are there now?
Is 9 times 9 more than 80?
On Monday Pia swam for 25 minutes and on Tuesday twice as long. For how many minutes did she swim in all?
A shop sold 12 kilos of flour on Friday, 20 on Saturday and a third of that on Sunday. How many kilos were sold?
Two boats travel 90 miles north and then 60 miles east. What distance does each of them cover?
Omar got 30 dollars from his uncle and adds 25. Then he gives half of the money away. How much money does he keep?
A tank holds 50 litres and loses 2 litres every hour. What does it hold after one day?
The oven is heated for 15 minutes, and the roast takes 40 minutes longer than that. How much time passes altogether?
A store has 240 pairs of boots and sells a quarter of them in a sale. How many pairs are unsold?
The ratio of cats to dogs is 2 to 3, and there are 12 dogs. How many cats are there?
The ribbon is 0.80 a metre. How many metres do I get for 4 dollars?
At a speed of 50 miles an hour, how long is a drive of 200 miles?
""".splitlines()
)

CODE = tuple(
    """\
python function that squares a number
code to reverse a list
def triple(n) that returns n times 3
write me some code that sums a list
lambda for checking if a number is even
Could you please write Python code which counts the letters in a string?
I'd like a method which returns the longest word of a sentence, please.
How do I filter the negative numbers out of a list in Python?
Implement is_prime(n).
Create a helper that joins words with a dash.
Can you code a function that removes spaces from text?
What is the Python code for sorting a list of strings?
Show me how to write a function that returns the first character of a string.
Program something that returns the maximum of three integers.
I need a script which prints every third element of an array.
pls write a pyton funciton that multiplys two nums
Give me a one-liner that turns a string into capitals.
Define clamp(x), which returns 10 if x is greater than 10 and x otherwise.
A function should take a list of prices and return the cheapest. Write it.
Hi, for school I have to write a program that checks whether a word is a palindrome. Can you do it?
Return True if the argument is divisible by 9, as a Python function.
My manager Lisa wants 2 reports and a coffee by 4, and I still need a function that returns the average of a list.
Complete this: def add_tax(price):
Write a function sheep_together(a, b): how many sheep do two farmers own?
function from celsius to fahrenheit
function returning the index of the smallest element
Python: replace all commas in a string with dots
Write a loop that appends the numbers from 1 to n to a list
How would you implement a stack class?
Fix this code: def f(x) return x + 1
need func, input a string, output its length
Please build a function that gives back a list without duplicates.
Make me a function named greet that puts 'hello' in front of its argument.
Is there a built-in way in Python to lower the case of a string? I want it as a function.
Turn `for i in a: b.append(i * 2)` into a function
Which Python expression drops the last item of a list?
swap keys and values of a dictionary, code please
Write a function which compares two strings, ignoring upper and lower case.
function to concatenate two lists in python
Given an integer n, return n minus 4 if it is odd, else n.
Would you mind writing a small function that halves a number?
I want code that says whether a list is sorted.
Take a string s and return it with all digits removed, in Python.
loop over xs and print the even ones
Create a class with a method that returns its name.
the code should take two arguments and give back the smaller one
I sell 12 kinds of tea. Write a function that gets the price and the number of bags and returns what to pay.
Write Python that reads a list of scores and returns those of at least 50.
regex or function to test for an email address
my func must return 0 when the list is empty, how do i code that
""".splitlines()
)

TOOLS = tuple(
    """\
What's the weather like in Rome today?
weather forecast for Tokyo
Will it be sunny in Madrid on Thursday?
How cold does it get in Oslo tonight, do I need a coat?
Start a timer, 12 minutes
Let me know when 20 minutes are over.
countdown of 3 minutes for my tea
Remind me in an hour to leave.
Send my sister a message that I will be late.
text Ben about the party
Write to Mia about the tickets.
Tell Sam that dinner is ready.
Switch off the light in the bathroom.
Make the lamps in the office blue, please.
lights on in the garage
It is too dark in the living room, brighter please.
It is cold in here, heat the living room to 22.
Turn the heating down to 18 in the bedroom.
19 degrees in here, please
The cellar should be warmer.
Book me a train from London to Paris on Friday.
I need a ticket to Berlin for tomorrow.
I have to go to Geneva on Monday, reserve the train.
trains to Munich tonight?
Find a recipe for lasagna for 5.
how do i bake bread for 8 people
I'd like to cook a goulash, what do I need?
How is tomato soup made?
Translate cheese into Italian.
How do I say goodbye in Japanese?
Which word do the Russians have for dog?
chair in french
I meet Anna on Wednesday at 3, write it into my calendar.
Arrange lunch with Jack on Tuesday at noon.
dentist Monday 10 am, add it to my calendar
Schedule a call with the team for Thursday.
Order 6 bottles of milk.
buy 4 notebooks
Could you get me some bread from the shop?
We have no coffee left, please order some.
Add butter to my shopping list.
Play some rock music in the kitchen.
put on a song in the hall for 10 minutes
I would like to hear some piano music while I read.
Find me some books about whales.
Does the library have novels on war?
Are there any books about gardening?
Wake me at 6 on Sunday.
set an alarm for half past seven
Get me out of bed at 4 tomorrow.
Call my brother, please.
Can you ring the plumber?
I want to talk to Nina on the phone.
dial my office
Tell me some facts about the history of Athens.
What is worth knowing about the museums of Vienna?
plese oder 3 piza
wheather in Milan
My husband and I have 5 guests and no time, so please phone the restaurant for me.
I am working on my code, so turn the music off in the office.
How do you say please in Danish?
What does a Frenchman say for bridge?
Would you kindly play something by Mozart?
Be so kind as to switch the heating on in the hall.
let my mother know that I have arrived
give Hugo a ring
Ask Lea by message when she comes.
I'd like to bake a pie, is there a recipe?
music please
Move me a meeting into Friday at 11 with the boss.
text Leo and ask him to buy bread
text my boss: I am ill today
write my wife that I am home by 7
play some jazz
play the song from the film Titanic
radio in the cellar, quietly
create a reminder to water the plants
remind me to pay the rent on Friday
set up a meeting with the lawyer for tomorrow
how would a Spaniard say good luck?
what's the Chinese for tea
how is an omelette prepared
give me a good recipe for dumplings
purchase two light bulbs for me
place an order for dog food
lower the heating in the attic
dim the lights
is it windy in Hamburg at the moment?
get Olivia on the line
""".splitlines()
)

EVERYDAY_EXAMPLES = {"math": MATH, "code": CODE, "tools": TOOLS}
"""By task."""
